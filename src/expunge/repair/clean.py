"""The repair itself: measure, unlearn, write aside, measure and audit what was written."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor, nn

from expunge.evaluation.before_after import Damage, Measured, damages, measure
from expunge.evaluation.evidence import Audit, audit
from expunge.evaluation.facts import Finding
from expunge.inputs.checkpoint import read_checkpoint, write_checkpoint
from expunge.inputs.checkpoint_weights import load_weights, state_to_write
from expunge.inputs.provenance import Provenance, file_hash, provenance
from expunge.methods.base import Request, Unlearned
from expunge.methods.request import Found
from expunge.repair.job import Report
from expunge.repair.loaded import enough_memory, smaller
from expunge.repair.prepare import Prepared
from expunge.training.cost import Meter
from expunge.training.numerics import Devices

_BEFORE, _UNLEARNED, _AUDITED = 0.05, 0.8, 0.85


@dataclass(frozen=True)
class Cleaned:
    """What came of a repair."""

    checkpoint: str  # name of the file that was written
    notes: tuple[str, ...]  # what happened on the way, in sentences, by the method
    before: Measured  # the model as it came
    after: Measured  # the model as it was written
    reference: Measured | None  # the model to compare with, if there is one
    audit: Audit  # whether it worked, and the numbers that this rests on
    damages: list[Damage]  # every class that stays, the largest loss first
    found: Found | None  # rows outside the list that the method named, the highest score first
    disagreeing: Tensor  # int64 (K,), rows outside the list that no longer get their given label
    cost: Meter  # of the unlearning
    cost_share: float | None  # of the sample gradients of a retraining, where the first training is known
    origin: Provenance  # hashes of what it was made from

    @property
    def rejected(self) -> bool:
        """Whether the result is worse than the model as it came, by the rules of the verdict."""
        return "damaged utility" in self.audit.verdict.outcomes


def clean(prepared: Prepared, folder: Path, report: Report) -> Cleaned:
    """Repair a copy of ``prepared.model``, write the checkpoint into ``folder``, and audit what was written.

    Raises:
        ExpungeError: the memory does not suffice; the message names the setting that lowers the need.
        InvalidInput: the method cannot work here, or a reference that does not fit.
        Diverged: the method led to NaN.
        StoreError: a file cannot be read or written.
    """
    job, data, on = prepared.job, prepared.data, prepared.on
    # In bfloat16 confidences near 1 would be equal, and attacks blind.
    numerics = replace(prepared.numerics, dtype="float32")
    remedy = f"use --measure-batch {max(1, job.measure_batch // 4)} (it was {job.measure_batch})"

    def measured(model: nn.Module) -> Measured:
        with enough_memory("measuring", remedy):
            return measure(model, on, numerics, batch_size=job.measure_batch)

    report(0.0, "measuring")
    origin = provenance(
        job.checkpoint, data, prepared.forget.positions, job.arch, prepared.method.name,
        prepared.method.settings(), job.options, job.purpose, job.seed, job.learn_truth,
        [] if on.true_labels is None else on.true_labels.tolist(),
        "" if prepared.first.start_file is None else file_hash(prepared.first.start_file),
    )  # fmt: skip
    original = prepared.model
    before, reference, compared = measured(original), None, None
    if job.reference is not None:
        reference = copy.deepcopy(original)
        load_weights(reference, read_checkpoint(job.reference))
        compared = measured(reference)
    result = unlearn(prepared, report)
    report(_UNLEARNED, "measuring")
    out = folder / job.written
    write_checkpoint(prepared.checkpoint, state_to_write(result.model, prepared.checkpoint), out)
    # What is measured is the file: in the stored precision, read as its user will read it.
    cleaned = copy.deepcopy(original)
    load_weights(cleaned, read_checkpoint(out))
    after = measured(cleaned)
    known = _known(prepared)
    with enough_memory("auditing", "use --device cpu"):
        found = audit(
            original,
            cleaned,
            data.examples,
            prepared.forget.positions,
            on.validation,
            retrained=reference,
            true_labels=on.true_labels,
            # The user's word; a true label that says otherwise is stronger.
            labels="wrong" if job.purpose == "heal" else "right",
            known=known,
            classes=data.classes,
            numerics=numerics,
            quick=True,
            progress=lambda share: report(_AUDITED + share * (1 - _AUDITED), "auditing"),
        )
    report(1.0, "")
    done = Cleaned(
        out.name, result.notes, before, after, compared, found,
        damages(before, after, data.classes, on.forgotten_classes), _found(result, prepared),
        _disagreeing(before, after, prepared), result.cost, _cost_share(prepared, result.cost), origin,
    )  # fmt: skip
    if done.rejected:
        # Nobody is to take it for the repaired model by its name.
        done = replace(done, checkpoint=out.rename(folder / f"rejected{job.checkpoint.suffix}").name)
    return done


def _known(prepared: Prepared) -> list[Finding]:
    """Return what the verdict is told without measuring."""
    if prepared.untouched:
        return [Finding("little to repair", prepared.choice.why)]
    if prepared.method.hides_only:
        inside = (
            "the method keeps these classes from being answered; what the model knows of them stays inside"
        )
        return [Finding("hidden, not forgotten", inside)]
    return []


def unlearn(prepared: Prepared, report: Report) -> Unlearned:
    """Return what the method makes of the model; its cost includes the search for a learning rate."""
    job, method, first = prepared.job, prepared.method, prepared.first
    doing = f"unlearning: {method.name}{f' on {job.devices} devices' if job.devices > 1 else ''}"

    def step(share: float) -> None:
        report((1 - share) * _BEFORE + share * _UNLEARNED, doing)

    step(0.0)
    request = Request(
        prepared.split, seed=job.seed, numerics=replace(prepared.numerics, devices=Devices(job.devices)),
        recipe=first.recipe, codes=prepared.codes, start=first.start, progress=step,
    )  # fmt: skip
    with enough_memory(f"unlearning with {method.name}", smaller(method)):
        result = method(prepared.model, request)
    result.cost.count(prepared.tried.sample_gradients)
    result.cost.seconds += prepared.tried.seconds
    return result


def _found(result: Unlearned, prepared: Prepared) -> Found | None:
    """Return what the method found outside the list, the highest score first."""
    if result.found is None:
        return None
    positions, scores = result.found.positions.cpu(), result.found.scores.cpu().double()
    # Rows after the data are those of corrected labels; they are not the user's.
    positions = positions[positions < len(prepared.data)]
    positions = positions[~prepared.on.forget[positions]]
    order = scores[positions].argsort(descending=True, stable=True)
    return Found(positions[order], scores, result.found.false_discovery)


def _disagreeing(before: Measured, after: Measured, prepared: Prepared) -> Tensor:
    labels = prepared.data.examples.labels.cpu()
    turned = (before.predictions == labels) & (after.predictions != labels) & ~prepared.on.forget
    return turned.nonzero().flatten()


def _cost_share(prepared: Prepared, cost: Meter) -> float | None:
    recipe = prepared.first.recipe
    if recipe is None:
        return None
    stay = len(prepared.data) - len(prepared.forget.positions)
    return cost.sample_gradients / (recipe.epochs * stay)
