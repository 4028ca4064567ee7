"""What an audit reads from many models of the method: their making, its price, and their rows of the table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from expunge.api import load_method
from expunge.data.examples import Examples
from expunge.errors import InvalidInput
from expunge.evaluation.problem import audit_problem
from expunge.evaluation.rows import Row
from expunge.fingerprint import fingerprint
from expunge.inputs.architecture import FreshNetwork
from expunge.inputs.provenance import arch_hash
from expunge.inputs.specification import Specification
from expunge.methods.base import Method
from expunge.metrics.base import Measurement
from expunge.metrics.of_populations import KLOM, RULI, ForgettingQuality, ULiRA
from expunge.populations.assess import PopulationReport, assess_population, halves_for
from expunge.populations.population import PopulationSettings
from expunge.repair.clean_files import REPORT
from expunge.repair.loaded import Loaded
from expunge.repair.price import seconds_of_a_gradient
from expunge.results.wording import duration
from expunge.store.weights import WeightStore
from expunge.training.loop import Progress
from expunge.training.recipe import Recipe

if TYPE_CHECKING:
    from expunge.repair.audit import AuditJob


def method_of(unlearned: Path, name: str | None, settings: Mapping[str, Any]) -> Method:
    """Return the method by ``name``; without one, that of the ``report.json`` beside the unlearned model."""
    if name is not None:
        return load_method(name, **settings)
    try:
        said = told_beside(unlearned, "method")
        return load_method(said["name"], **{**said["settings"], **settings})
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInput(
            f"a population unlearns by the method that made {unlearned.name}, and no {unlearned.with_name(REPORT)} "
            "says which that was; name it with --method, and its settings with --set"
        ) from error


def told_beside(unlearned: Path, part: str) -> dict[str, Any]:
    """Return a part of the report that "expunge clean" left beside the model; empty where there is none."""
    try:
        found = json.loads(unlearned.with_name(REPORT).read_text(encoding="utf-8"))[part]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


class PopulationPlan:
    """The models of a population, not trained yet.

    Args:
        job: the audit that is asked for.
        loaded: the original model and its data.
        validation: data that no model is trained on.
        true_labels: of the training data, where they are known.
        recipe: of every first training.
        digest: hash of the training data.

    Too few models, or too few listed rows for the attacks, are an error at once.
    """

    def __init__(
        self, job: AuditJob, loaded: Loaded, validation: Examples, true_labels: Tensor | None, recipe: Recipe,
        digest: str,
    ) -> None:  # fmt: skip
        data, self._original, self.numerics, self.kept = loaded.data, loaded.model, loaded.numerics, job.kept
        self.method = method_of(job.unlearned, job.method, job.settings)
        self._fresh = FreshNetwork(job.arch, data.shape, len(data.classes))
        problem = audit_problem(data.examples, loaded.forget.positions, validation, true_labels)
        self.problem = replace(problem, training_key=fingerprint("audit", digest, arch_hash(job.arch)))
        # By the network's name stored models are told apart.
        network = Specification.parse(job.arch)
        recipe = replace(
            recipe, model=network.target.removeprefix("expunge:"), model_settings=dict(network.settings)
        )
        self.settings = PopulationSettings(recipe=recipe, n_models=job.population, seed=job.seed)
        halves_for(self.problem, self.settings, self.numerics)

    def price(self) -> str:
        """Return what is going to be done and how long it takes about, from a few timed steps."""
        split, recipe, count = self.problem.split, self.settings.recipe, self.settings.n_models
        n, stay = len(split.train), len(split.retain)
        gradient = seconds_of_a_gradient(
            self._original, split.retain, self.numerics, min(recipe.batch_size, stay), self.settings.seed
        )
        size = getattr(self.method, "batch_size", None) or recipe.batch_size
        # Half of the data, all of it, and the rows that stay; the first two unlearn.
        rows = recipe.epochs * (1.5 * n + stay) + self.method.epochs_on(n, size, recipe) * 1.5 * n
        return (
            f"population: {3 * count} networks are trained and {2 * count} of them unlearn by {self.method.name}, in "
            f"about {duration(count * rows * gradient)}; those that are finished are kept in {self.kept}"
        )

    def assess(self, progress: Progress) -> PopulationReport:
        """Train, unlearn and attack; what is kept already is not made again.

        Raises:
            InvalidInput: a method that cannot work here, or too small a forget set.
            Diverged: a training became NaN.
            StoreError: a model cannot be kept.
        """
        # In one process: a data set of the user's own cannot always be handed to another.
        return assess_population(
            self.method, self.problem, self.settings, WeightStore(self.kept), fresh=self._fresh,
            numerics=self.numerics, workers=1, progress=progress,
        )  # fmt: skip


def population_rows(found: PopulationReport) -> tuple[Row, ...]:
    """Return the rows of the table; "retrained" is what one half of the retrained models gives against the other."""
    rows = []
    for metric in (ULiRA(), KLOM(), ForgettingQuality(), RULI()):
        for name in metric.numbers:
            of = found.values[name]
            models = {"unlearned": Measurement(name, metric, of.value, of.low, of.high, of.because)}
            if of.floor is not None:
                models["retrained"] = Measurement(name, metric, of.floor)
            rows.append(Row(name, metric, models))
    return tuple(rows)
