"""The audit: measure every model on one problem, and judge."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from expunge.data.examples import Examples
from expunge.errors import InvalidInput
from expunge.evaluation.audit_metrics import ForgetAccuracy, KeptAccuracy, audit_metrics
from expunge.evaluation.facts import Facts, Finding, Labels
from expunge.evaluation.problem import Audited, audit_problem
from expunge.evaluation.references import SECOND
from expunge.evaluation.rows import Row, measure_rows
from expunge.evaluation.verdict import Verdict, judge
from expunge.metrics.base import Evaluated, Metric
from expunge.tasks.base import Problem
from expunge.training.logits import check_logits
from expunge.training.loop import Progress, silent
from expunge.training.numerics import Numerics


@dataclass(frozen=True)
class Audit:
    """What was measured, and what it says.

    Args:
        verdict: in words.
        rows: the numbers, in the order of the table.
        facts: what the verdict was read from.
        seconds: metric -> wall time, of all models together.
    """

    verdict: Verdict
    rows: tuple[Row, ...]
    facts: Facts
    seconds: Mapping[str, float]


def audit(
    original: nn.Module,
    unlearned: nn.Module,
    train: Examples,
    forget: Tensor,
    test: Examples | None,
    *,
    retrained: nn.Module | None = None,
    second_retrained: nn.Module | None = None,
    oracle: nn.Module | None = None,
    true_labels: Tensor | None = None,
    labels: Labels | None = None,
    known: Sequence[Finding] = (),
    classes: Sequence[str] = (),
    numerics: Numerics | None = None,
    metrics: Sequence[Metric] | None = None,
    quick: bool = False,
    progress: Progress = silent,
) -> Audit:
    """Measure an unlearned model beside the original and its references, and say what it comes to.

    A measurement, not a certificate. Copies of the models are used; they and the data stay as they are.

    Args:
        original: the model before unlearning.
        unlearned: the model in question.
        train: what the original was trained on, given labels.
        forget: positions in ``train`` (integers, or a boolean mask) of what was to be forgotten.
        test: examples that no model was trained on, chosen by no one for a model's sake. Without them what they are
            needed for is not defined, and loss of utility is read from the retain set.
        retrained: a model trained without the forget set, by the original's recipe. Without it the claims are weaker,
            and say so.
        second_retrained: another one, of another seed: how far the two lie apart is the noise floor of every number.
        oracle: a model trained on everything with the true labels.
        true_labels: int64 (N,), of ``train``, negative where they are not known.
        labels: whether the given labels of the forget set are right, where that is known without the true ones.
            By default "right" if ``true_labels`` says so of every one, else "unknown". A wrong one among the
            ``true_labels`` makes "wrong" in any case.
        known: what is known without measuring, such as a method that only hides; it enters the verdict.
        classes: their names, for the sentences of the verdict.
        numerics: where to compute; by default the device of ``train``, float32.
        metrics: what to measure, by default :func:`~expunge.evaluation.audit_metrics.audit_metrics`; the accuracies
            are always measured. The rules of the verdict that lack their number are left out. Settings and seeds are
            the metrics' own.
        quick: leave out the metrics that take long, such as relearning.
        progress: called with the share of the work that is done.

    Raises:
        InvalidInput: positions or labels that do not fit, a model without logits for the classes of the data, a
            second retrained model without a first.
    """
    if second_retrained is not None and retrained is None:
        raise InvalidInput(
            "a second retrained model gives the noise floor of the first: give retrained too, or only retrained"
        )
    problem = audit_problem(train, forget, test, true_labels)
    numerics = numerics or Numerics(str(train.device), channels_last=False)
    given = {
        "original": original,
        "unlearned": unlearned,
        "retrained": retrained,
        "oracle": oracle,
        SECOND: second_retrained,
    }
    models = {
        role: numerics.place(copy.deepcopy(model)).eval()
        for role, model in given.items()
        if model is not None
    }
    # One object for each model, whoever compares with it: its predictions are made once.
    evaluated: dict[str, Evaluated] = {}
    for role, model in models.items():
        _check_logits(role, model, train, numerics)
        # Data that comes with an augmentation was trained on with it.
        evaluated[role] = Audited(model, problem, numerics, evaluated, augment=True)
    said = _labels(problem, true_labels, labels)
    if metrics is None:
        metrics = audit_metrics(models["original"], problem, quick=quick, wrong=said == "wrong")
    names = {metric.name for metric in metrics}
    always = [metric for metric in (ForgetAccuracy(), KeptAccuracy()) if metric.name not in names]
    rows, seconds = measure_rows([*always, *metrics], evaluated, progress)
    facts = Facts.of(rows, problem, models, said, classes)
    return Audit(judge(facts, known), rows, facts, seconds)


def _labels(problem: Problem, true_labels: Tensor | None, said: Labels | None) -> Labels:
    if len(problem.truth.known):
        return "wrong"
    if said is not None:
        return said
    listed = problem.split.forget_positions.cpu()
    right = true_labels is not None and bool((true_labels.cpu()[listed] >= 0).all())
    return "right" if right else "unknown"


def _check_logits(role: str, model: nn.Module, train: Examples, numerics: Numerics) -> None:
    role = role.replace("_", " ")
    try:
        found = check_logits(model, next(train.batches(3)).x, numerics)
    except InvalidInput as error:
        raise InvalidInput(f"{role}: {error}") from error
    if found.n_logits != train.n_classes:
        raise InvalidInput(
            f"the {role} model returns {found.n_logits} logits, but the data has {train.n_classes} classes; give "
            "models of one task"
        )
