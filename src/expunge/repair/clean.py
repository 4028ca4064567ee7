"""The repair itself: measure, unlearn, write aside, measure what was written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from expunge.api import unlearn
from expunge.methods.base import Unlearned
from expunge.repair.checkpoint import read_checkpoint, write_checkpoint
from expunge.repair.choice import HIDING
from expunge.repair.measure import Measured, measure
from expunge.repair.memory import enough_memory, smaller
from expunge.repair.prepare import Prepared
from expunge.repair.provenance import Provenance, provenance
from expunge.repair.verdict import Damage, Verdict, damages, judge
from expunge.repair.weights import load_weights, state_to_write
from expunge.training.cost import Meter

Report = Callable[[float, str], None]
"""Receives the share of the work that is done, in [0, 1], and what is being done."""

_BEFORE, _UNLEARNED = 0.1, 0.9


@dataclass(frozen=True)
class FoundRows:
    """Rows outside the list that a method named as bad.

    Args:
        positions: int64 (K,) in the training data, the highest score first.
        scores: float64 (K,), in the method's unit.
        expected_good: share of them that the method itself expects to be good, in [0, 1].
    """

    positions: Tensor
    scores: Tensor
    expected_good: float


@dataclass(frozen=True)
class Cleaned:
    """What came of a repair.

    Args:
        checkpoint: name of the file that was written.
        before: the model as it came.
        after: the model as it was written.
        reference: the model to compare with, if there is one.
        verdict: whether it worked.
        damages: every class that stays, the largest loss first.
        found: rows outside the list that the method named; ``None`` for a method that names none.
        disagreeing: int64 (K,), rows outside the list that were given their stored label and no longer are.
        cost: of the unlearning.
        cost_share: its sample gradients over those of a retraining on the rows that stay; ``None`` where the
            epochs of the first training are not known.
        origin: hashes of what it was made from.
    """

    checkpoint: str
    before: Measured
    after: Measured
    reference: Measured | None
    verdict: Verdict
    damages: list[Damage]
    found: FoundRows | None
    disagreeing: Tensor
    cost: Meter
    cost_share: float | None
    origin: Provenance


def clean(prepared: Prepared, folder: Path, report: Report) -> Cleaned:
    """Repair ``prepared.model``, write the checkpoint into ``folder``, and measure what was written.

    ``prepared.model`` holds the repaired weights afterwards; the file it came from is only read.

    Raises:
        ExpungeError: the memory does not suffice; the message names the setting that lowers the need.
        InvalidInput: the method cannot work here, or a reference that does not fit.
        Diverged: the method led to NaN.
        StoreError: a file cannot be read or written.
    """
    job, model, data, on = prepared.job, prepared.model, prepared.data, prepared.on
    remedy = f"use --measure-batch {max(1, job.measure_batch // 4)} (it was {job.measure_batch})"

    def measured() -> Measured:
        with enough_memory("measuring", remedy):
            return measure(model, on, prepared.numerics, batch_size=job.measure_batch, seed=job.seed)

    report(0.0, "measuring")
    origin = provenance(
        job.checkpoint, data, prepared.forget.positions, job.arch, prepared.method.name,
        prepared.method.settings(), job.options, job.purpose, job.seed, job.learn_truth,
        [] if prepared.truth is None else prepared.truth.labels.tolist(),
    )  # fmt: skip
    before, reference = measured(), None
    if job.reference is not None:
        original = prepared.checkpoint
        load_weights(model, read_checkpoint(job.reference))
        reference = measured()
        load_weights(model, original)
    result = _unlearn(prepared, report)
    report(_UNLEARNED, "measuring")
    out = folder / f"checkpoint{job.checkpoint.suffix}"
    write_checkpoint(prepared.checkpoint, state_to_write(result.model, prepared.checkpoint), out)
    # What is measured is the file: in the stored precision, read as its user will read it.
    load_weights(model, read_checkpoint(out))
    after = measured()
    report(1.0, "")
    return Cleaned(
        out.name,
        before,
        after,
        reference,
        judge(
            before,
            after,
            job.purpose,
            data.classes,
            on.forgotten_classes,
            reference=reference,
            hidden=prepared.method.name in HIDING,
        ),
        damages(before, after, data.classes, on.forgotten_classes),
        _found(result, prepared),
        _disagreeing(before, after, prepared),
        result.cost,
        _cost_share(prepared, result.cost),
        origin,
    )


def _unlearn(prepared: Prepared, report: Report) -> Unlearned:
    job, method = prepared.job, prepared.method
    doing = f"unlearning: {method.name}"

    def step(share: float) -> None:
        report((1 - share) * _BEFORE + share * _UNLEARNED, doing)

    step(0.0)
    with enough_memory(f"unlearning with {method.name}", smaller(method)):
        return unlearn(
            prepared.model,
            prepared.train,
            forget=prepared.forget.positions,
            method=method,
            seed=job.seed,
            device=prepared.numerics.device,
            recipe=job.recipe,
            unseen=prepared.unseen,
            codes=prepared.codes,
            progress=step,
        )


def _found(result: Unlearned, prepared: Prepared) -> FoundRows | None:
    if result.found is None:
        return None
    positions, scores = result.found.positions.cpu(), result.found.scores.cpu().double()
    # Rows after the data are those of corrected labels; they are not the user's.
    positions = positions[positions < len(prepared.data)]
    positions = positions[~prepared.on.forget[positions]]
    order = scores[positions].argsort(descending=True, stable=True)
    return FoundRows(positions[order], scores[positions][order], result.found.false_discovery)


def _disagreeing(before: Measured, after: Measured, prepared: Prepared) -> Tensor:
    labels = prepared.data.examples.labels.cpu()
    turned = (before.predictions == labels) & (after.predictions != labels) & ~prepared.on.forget
    return turned.nonzero().flatten()


def _cost_share(prepared: Prepared, cost: Meter) -> float | None:
    recipe = prepared.job.recipe
    if recipe is None:
        return None
    stay = len(prepared.data) - len(prepared.forget.positions)
    return cost.sample_gradients / (recipe.epochs * stay)
