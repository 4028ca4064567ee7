"""Everything a population of models shows about one method on one problem."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from expunge.errors import InvalidInput
from expunge.methods.base import Method
from expunge.metrics.ruli import memorisation, vulnerable
from expunge.metrics.ulira import leave_one_out
from expunge.populations.build import Crew, Setting, train_members, unlearn_members
from expunge.populations.comparison import Comparison, PopulationValue
from expunge.populations.population import (
    Member,
    PopulationSettings,
    Scores,
    draw_halves,
    draw_retrained,
    draw_whole,
    inside,
)
from expunge.store.weights import WeightStore
from expunge.tasks.base import Problem
from expunge.training.loop import Progress, silent
from expunge.training.numerics import Numerics


@dataclass(frozen=True, eq=False)
class PopulationReport:
    """What the populations of a method show.

    Args:
        values: the numbers, by name.
        trained: models that this call trained; the others were stored.
        unlearned: models that this call unlearned.
        seconds: wall time of the call.
    """

    values: dict[str, PopulationValue]
    trained: int
    unlearned: int
    seconds: float


def halves_for(
    problem: Problem, settings: PopulationSettings, numerics: Numerics
) -> tuple[list[Member], Tensor]:
    """Return the halves, and bool (N, F): which of the forget examples each is trained on.

    Raises:
        InvalidInput: a forget set or a population that is too small for the attack; told before the hour of training.
    """
    halves = draw_halves(problem, settings, numerics)
    trained_on = inside(halves, problem.split.forget_positions.cpu())
    leave_one_out(torch.zeros(trained_on.shape), trained_on)
    return halves, trained_on


def assess_population(
    method: Method,
    problem: Problem,
    settings: PopulationSettings,
    store: WeightStore,
    *,
    fresh: Callable[[torch.Generator], nn.Module] | None = None,
    numerics: Numerics | None = None,
    workers: int | None = None,
    progress: Progress = silent,
) -> PopulationReport:
    """Train what is missing, unlearn, attack, and return every population metric of ``method``.

    Three populations of N models are trained. *Halves*: each on a random part of the data, then made to
    unlearn what it had of the forget set (U-LiRA, RULI's privacy game). *Whole*: each on everything, then
    made to unlearn the forget set. *Retrained*: each on the retain set. The last two are compared by KLOM,
    the forgetting quality of the NeurIPS 2023 competition and RULI's efficacy game. A second method on
    the same problem only unlearns; the same call again computes nothing but the metrics.

    Numbers: ``ulira_accuracy``, ``ulira_auc`` (means over the forget set), ``ulira_auc_p95`` (the 95th
    percentile: some examples are worse off than the mean), ``ulira_tpr_at_1_percent`` (under one
    threshold for all examples); ``klom_forget``, ``klom_retain``, ``klom_validation`` (95th percentiles,
    nats; the validation points are the test set); ``forgetting_quality`` and ``final_score``;
    ``ruli_privacy_auc`` and ``ruli_efficacy_auc`` (means over the most memorised forget examples).

    Args:
        method: makes the unlearned models; a preparation it needs becomes part of the recipe.
        problem: task and data.
        settings: recipe, number of models, shares, seed.
        store: keeps weights and scores under content hashes.
        fresh: makes untrained networks; by default those of the recipe. What it makes must be a part of the problem's
            ``training_key``.
        numerics: where to compute; by default the fastest safe setting.
        workers: processes of one thread; by default one per core, or one on an accelerator.
        progress: receives the share of the models that are ready.

    Raises:
        InvalidInput: a method that reads the truth, a forget set below two examples, a population so small
            that an example has fewer than three models on one side.
        Diverged: a model's loss, parameters or logits are not finite.
        StoreError: the store cannot be read or written.
    """
    if method.oracle:
        raise InvalidInput(
            f"method {method.name!r} reads the truth about the data, which the models of a population do not have; "
            "assess a method without it"
        )
    started = time.perf_counter()
    numerics = numerics or Numerics.choose(image_size=problem.shape[1])
    settings = dataclasses.replace(settings, recipe=settings.recipe.prepared(method.preparation))
    halves, trained_on = halves_for(problem, settings, numerics)
    whole = draw_whole(problem, settings, numerics)
    retrained = draw_retrained(problem, settings, numerics)
    forget = problem.split.forget_positions.cpu()
    setting = Setting(problem, settings.recipe, numerics, store.folder, fresh)

    def part(start: float, end: float) -> Progress:
        return lambda share: progress(start + (end - start) * share)

    with Crew(setting, workers) as crew:
        trained = train_members(crew, [*halves, *whole], keep_weights=True, progress=part(0.0, 0.4))
        trained += train_members(crew, retrained, keep_weights=False, progress=part(0.4, 0.6))
        unlearned = unlearn_members(crew, [*halves, *whole], method, progress=part(0.6, 1.0))

    def scores(members: Sequence[Member], of: Method | None) -> Scores:
        return Scores.load(setting.store, [member.scores_key(of) for member in members])

    memorised = memorisation(scores(halves, None).confidences[:, forget], trained_on)
    comparison = Comparison(
        halves=scores(halves, method),
        trained_on=trained_on,
        unlearned=scores(whole, method),
        retrained=scores(retrained, None),
        forget_mask=problem.split.forget_mask.cpu(),
        targets=vulnerable(memorised, settings.vulnerable),
    )
    return PopulationReport(
        values={value.name: value for value in comparison.values()},
        trained=trained,
        unlearned=unlearned,
        seconds=time.perf_counter() - started,
    )
