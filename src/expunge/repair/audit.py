"""Audit an unlearned model from files: read and check, train references, measure, judge."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from expunge.choice import Purpose
from expunge.detection.out_of_sample import short_training
from expunge.errors import InvalidInput
from expunge.evaluation.audit_table import as_document
from expunge.evaluation.evidence import Audit, audit
from expunge.evaluation.facts import Labels
from expunge.evaluation.references import References, check_made_from, train_references
from expunge.fingerprint import fingerprint
from expunge.inputs.architecture import FreshNetwork
from expunge.inputs.checkpoint import read_checkpoint
from expunge.inputs.forget_list import read_true_labels
from expunge.inputs.provenance import arch_hash, data_hash, file_hash
from expunge.inputs.sources import load_validation_data
from expunge.inputs.training_data import DataOptions
from expunge.populations.population import PopulationSettings
from expunge.repair.audit_population import PopulationPlan, method_of, population_rows, told_beside
from expunge.repair.job import Job, Report
from expunge.repair.loaded import Loaded, build_loaded, load
from expunge.store.atomic import write_output
from expunge.store.weights import WeightStore
from expunge.training.continued import completed
from expunge.training.recipe import PartialRecipe, Recipe

_LABELS: Mapping[str, Labels] = {"heal": "wrong", "forget": "right"}
"""What the purpose says of the given labels of the list."""


@dataclass(frozen=True, kw_only=True)
class AuditJob:
    """An audit to be made.

    Args:
        original: file of the model before unlearning.
        unlearned: file of the model in question.
        arch: the network, one for all models, see ``build_architecture``.
        data: what the original was trained on, see ``load_training_data``.
        forget: what was to be forgotten, see ``read_forget_list``.
        validation: data that no model was trained on.
        options: how data is read, and onto which device.
        retrained: file of a model trained without the forget set.
        retrained_again: another one, of another seed.
        oracle: file of a model trained on everything with the true labels.
        truth: true labels, see ``read_true_labels``.
        train_reference: train the retrained model twice, and with ``truth`` the oracle.
        recipe: of the original's training, for ``train_reference``; by default a short training by AdamW.
        references: folder that keeps trained references; by default "references" beside the original.
        purpose: "heal" where the given labels of the list count as wrong, "forget" where they are right; by default
            ``report.json`` beside ``unlearned`` says, or ``truth``; else it is not known.
        population: train so many models three times, for what only many show; 0 for none.
        method: by which they unlearn; by default the one that ``report.json`` beside ``unlearned`` names.
        settings: of the method, name -> value.
        quick: leave out the metrics that take long.
        seed: of the models that are trained.

    Raises:
        InvalidInput: references that are both trained and given, or a recipe for none.
    """

    original: Path
    unlearned: Path
    arch: str
    data: str
    forget: str
    validation: str
    options: DataOptions = field(default_factory=DataOptions)
    retrained: Path | None = None
    retrained_again: Path | None = None
    oracle: Path | None = None
    truth: str | None = None
    train_reference: bool = False
    recipe: Recipe | None = None
    references: Path | None = None
    purpose: Purpose | None = None
    population: int = 0
    method: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    quick: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.train_reference and (self.retrained or self.retrained_again or self.oracle):
            raise InvalidInput(
                "--train-reference trains what --retrained, --retrained-again and --oracle name: give it, or them"
            )
        if self.purpose not in (None, *_LABELS):
            raise InvalidInput(f"--purpose takes heal or forget, got {self.purpose!r}")
        if self.recipe is not None and not (self.train_reference or self.population):
            raise InvalidInput(
                "--recipe says how models are trained: give --train-reference or --population too"
            )
        if not self.population and (self.method is not None or self.settings):
            raise InvalidInput("--method and --set say how a population unlearns: give --population too")
        if self.population:  # a mistake is told before any data is read
            PopulationSettings(recipe=Recipe(), n_models=self.population)
            method_of(self.unlearned, self.method, self.settings)

    @property
    def files(self) -> dict[str, Path]:
        """Role -> checkpoint, of those that are given."""
        given = {
            "original": self.original, "unlearned": self.unlearned, "retrained": self.retrained,
            "second_retrained": self.retrained_again, "oracle": self.oracle,
        }  # fmt: skip
        return {role: path.expanduser() for role, path in given.items() if path is not None}

    @property
    def kept(self) -> Path:
        """The folder that keeps trained references."""
        return (self.references or self.original.with_name("references")).expanduser()


@dataclass(frozen=True)
class AuditOutcome:
    """What came of an audit."""

    job: AuditJob  # what was asked for
    audit: Audit  # verdict and numbers
    references: References | None  # those that were trained or kept, if any were to be
    notes: tuple[str, ...]  # what was decided in reading, and what is doubtful
    about: Mapping[str, Any]  # what the audit was made from, for its file

    def write(self, path: Path) -> None:
        """Write every number to ``path`` as JSON, whole or not at all.

        Raises:
            StoreError: the file cannot be written.
        """
        content = json.dumps(as_document(self.audit, self.about), indent=2, allow_nan=False)
        write_output(path, (content + "\n").encode(), remedy="choose another folder with --out")


def audit_files(
    job: AuditJob,
    report: Report = lambda share, doing: None,
    announce: Callable[[str], None] = lambda price: None,
) -> AuditOutcome:
    """Carry out ``job``; nothing but trained models is written. ``announce`` is told the price of a population first.

    Measured in float32: in bfloat16 confidences near 1 would be equal, and attacks blind.

    Raises:
        CheckFailed: the original does not belong to the data.
        InvalidInput: anything that cannot be used, or a reference that was made for other data or another list.
        Diverged: the training of a reference became NaN.
        StoreError: a checkpoint cannot be read, or a reference not be kept.
    """
    report(0.0, "reading")
    files = job.files
    loaded = load(
        Job(
            checkpoint=files["original"], arch=job.arch, data=job.data, forget=job.forget, options=job.options,
            device=job.options.device,
        )
    )  # fmt: skip
    digest = data_hash(loaded.data)
    models = {"original": loaded.model}
    for role, path in files.items():
        if role != "original":
            checkpoint = read_checkpoint(path)
            model, _ = build_loaded(checkpoint, job.arch, loaded.data)
            models[role] = loaded.numerics.place(model)
            if role != "unlearned":
                check_made_from(checkpoint.metadata, digest, loaded.forget.positions, str(path))
    validation = load_validation_data(job.validation, job.options, loaded.data)
    true_labels = None if job.truth is None else read_true_labels(job.truth, loaded.data)
    plan = None
    if job.population:
        plan = PopulationPlan(job, loaded, validation, true_labels, _recipe(job, loaded), digest)
        announce(plan.price())
    trained, begun, until = None, 0.0, 1.0 if plan is None else 0.3
    if job.train_reference:
        begun = until / 2
        trained = _train(job, loaded, digest, true_labels, report, begun)
        models |= trained.models
    purpose = job.purpose or str(told_beside(job.unlearned, "asked").get("purpose"))
    found = audit(
        models["original"],
        models["unlearned"],
        loaded.data.examples,
        loaded.forget.positions,
        validation,
        retrained=models.get("retrained"),
        second_retrained=models.get("second_retrained"),
        oracle=models.get("oracle"),
        true_labels=true_labels,
        labels=_LABELS.get(purpose),
        classes=loaded.data.classes,
        numerics=replace(loaded.numerics, dtype="float32"),
        quick=job.quick,
        progress=lambda share: report(begun + (until - begun) * share, "measuring"),
    )
    if plan is not None:
        many = plan.assess(lambda share: report(until + (1 - until) * share, "training a population"))
        seconds = {**found.seconds, "population": many.seconds}
        found = replace(found, rows=(*found.rows, *population_rows(many)), seconds=seconds)
    doubts = [f"{each.where} {each.what}" for each in loaded.check.findings if each.level == "warning"]
    notes = (*loaded.data.notes, *loaded.forget.notes, *doubts)
    return AuditOutcome(job, found, trained, notes, _about(job, loaded, digest, trained, plan))


def _train(
    job: AuditJob, loaded: Loaded, digest: str, true_labels: Tensor | None, report: Report, until: float
) -> References:
    """Train the references that are not kept yet."""
    data = loaded.data
    return train_references(
        FreshNetwork(job.arch, data.shape, len(data.classes)),
        data.examples,
        loaded.forget.positions,
        recipe=_recipe(job, loaded),
        numerics=loaded.numerics,
        kept=WeightStore(job.kept),
        architecture=arch_hash(job.arch),
        data=digest,
        true_labels=true_labels,
        seed=job.seed,
        progress=lambda share: report(until * share, f"training references, kept in {job.kept}"),
    )


def _recipe(job: AuditJob, loaded: Loaded) -> Recipe:
    if job.recipe is None:
        return short_training(len(loaded.data) - len(loaded.forget.positions), augment=True)
    recipe = completed(job.recipe, loaded.model)
    return recipe.plain() if isinstance(recipe, PartialRecipe) else recipe


def _about(
    job: AuditJob, loaded: Loaded, digest: str, trained: References | None, plan: PopulationPlan | None
) -> dict[str, Any]:
    made = None
    if trained is not None:
        made = {"seconds": dict(trained.seconds), "trained_now": list(trained.trained)}
    return {
        "made_from": {
            "arch": job.arch,
            "checkpoints": {
                role: {"path": str(path), "sha256": file_hash(path)} for role, path in job.files.items()
            },
            "data": job.data,
            "data_hash": digest,
            "forget": job.forget,
            "forget_hash": fingerprint(loaded.forget.positions),
            "validation": job.validation,
            "truth": job.truth,
            "numerics": asdict(loaded.numerics) | {"dtype": "float32"},
        },
        "references": made,
        "population": None
        if plan is None
        else {"models": job.population, "method": plan.method.name, "settings": plan.method.settings()},
    }
