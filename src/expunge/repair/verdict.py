"""Whether a repair worked, in plain words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from expunge.audit.thresholds import Thresholds, allowed, sampling_error
from expunge.repair.choice import Purpose
from expunge.repair.measure import Measured, Share

Grade = Literal["it worked", "it worked in part", "it did not work: retrain"]

_T = Thresholds()
_BEYOND = 0.03
"""Accuracy beyond what is tolerated that may be lost before a repair counts as failed."""
_UNKNOWN_ROWS = 0.2
"""By stored labels: bad rows outside the list that are healed look like a loss too."""
_HEALED = 0.5


@dataclass(frozen=True)
class Verdict:
    """The grade and the sentences behind it, the gravest first."""

    grade: Grade
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Damage:
    """A class, its accuracy before and after, and the difference: above 0 it lost."""

    name: str
    before: Share
    after: Share

    @property
    def loss(self) -> float:
        """Accuracy before minus accuracy after, in [-1, 1]."""
        return self.before.value - self.after.value

    def tolerated(self, n_classes: int) -> float:
        """The loss that may be chance, of the largest of ``n_classes`` losses."""
        error = sampling_error(self.before.value, self.before.of, _T.level / n_classes)
        return allowed(_T.class_utility, None, error)


def damages(
    before: Measured, after: Measured, classes: Sequence[str], forgotten: Sequence[int] = ()
) -> list[Damage]:
    """Return every class that stays and can be measured, the largest loss first."""
    pairs = zip(classes, before.per_class, after.per_class, strict=True)
    found = [
        Damage(name, first, second)
        for label, (name, first, second) in enumerate(pairs)
        if first is not None and second is not None and label not in forgotten
    ]
    return sorted(found, key=lambda damage: -damage.loss)


def judge(
    before: Measured,
    after: Measured,
    purpose: Purpose,
    classes: Sequence[str],
    forgotten: Sequence[int] = (),
    *,
    reference: Measured | None = None,
    hidden: bool = False,
) -> Verdict:
    """Return the verdict; what is tolerated is what :mod:`expunge.audit` tolerates.

    Removed: bad rows, and those of a forgotten class, no longer get their stored label, or as seldom as from
    the ``reference``; good samples are told from unseen ones no better than by chance. Kept: accuracy fell no
    lower than that of the original and the reference, on the validation set where there is one, and so of
    each class. Healed: half of the known true labels are given, at least. What is ``hidden``, kept from being
    answered and not taken out, has worked in part at best.
    """
    failed: list[str] = []
    doubts: list[str] = []
    fine: list[str] = []
    if purpose == "heal" or forgotten:
        _removal(before, after, reference, failed, doubts, fine)
    else:
        _samples(after, failed, doubts, fine)
    if hidden:
        doubts.append(
            "the classes are kept from being answered; what the model knows of them is still inside"
        )
    _utility(before, after, reference, failed, doubts, fine)
    _classes(before, after, classes, forgotten, doubts)
    if after.healed_known is not None:
        told = f"{_told(after.healed_known)} listed rows with a known true label are given it"
        (fine if after.healed_known.value >= _HEALED else doubts).append(told)
    if after.healed_unknown is not None:
        told = f"{_told(after.healed_unknown)} bad rows outside the list are given their true label"
        (fine if after.healed_unknown.value >= _HEALED else doubts).append(told)
    grade: Grade = "it worked"
    if failed:
        grade = "it did not work: retrain"
    elif doubts:
        grade = "it worked in part"
    return Verdict(grade, (*failed, *doubts, *fine))


def _removal(
    before: Measured,
    after: Measured,
    reference: Measured | None,
    failed: list[str],
    doubts: list[str],
    fine: list[str],
) -> None:
    left, was = after.forget_as_stored, before.forget_as_stored
    aim = 0.0 if reference is None else reference.forget_as_stored.value
    told = f"{_told(left)} listed rows keep their stored label (before: {was.value:.0%})"
    limit = aim + allowed(_T.forget, None, sampling_error(aim, left.of, _T.level))
    if was.value <= limit:
        doubts.append(f"{told}: the model hardly had it, so there was nothing to take out")
    elif left.value <= limit:
        fine.append(told)
    elif left.value < aim + _T.left * (was.value - aim):
        doubts.append(told)
    else:
        failed.append(told)


def _samples(after: Measured, failed: list[str], doubts: list[str], fine: list[str]) -> None:
    attack = after.attacks.get("loss")
    if attack is None or attack.low is None or attack.high is None:
        doubts.append(
            "whether good rows are forgotten shows only beside rows that were never seen: give --validation"
        )
        return
    told = f"an attack on the loss tells the forgotten rows from unseen ones with AUC {attack.auc:.2f}"
    if attack.low > 0.5 + _T.attack:
        failed.append(f"{told}: they still look trained on")
    elif attack.high < 0.5 - _T.attack:
        doubts.append(f"{told}: they look less known than unseen rows, which gives them away as well")
    else:
        fine.append(f"{told} (0.50: not at all)")


def _utility(
    before: Measured,
    after: Measured,
    reference: Measured | None,
    failed: list[str],
    doubts: list[str],
    fine: list[str],
) -> None:
    models = [before, after, *([] if reference is None else [reference])]
    held_out = [model.validation for model in models if model.validation is not None]
    shares = held_out or [model.retained for model in models]
    first, second = shares[0].value, shares[1].value
    lowest = min(share.value for share in (shares[0], *shares[2:]))
    limit = allowed(_T.utility, None, sampling_error(lowest, shares[0].of, _T.level))
    where = "validation accuracy" if held_out else "accuracy on the rows that stay (stored labels)"
    told = f"{where} went from {first:.1%} to {second:.1%}"
    if lowest - second <= limit:
        fine.append(told)
    elif held_out:
        (doubts if lowest - second <= limit + _BEYOND else failed).append(told)
    elif lowest - second <= _UNKNOWN_ROWS:
        doubts.append(
            f"{told}: damage, or bad rows outside the list that are healed; --validation would tell the two apart"
        )
    else:
        failed.append(told)


def _classes(
    before: Measured, after: Measured, classes: Sequence[str], forgotten: Sequence[int], doubts: list[str]
) -> None:
    lost = damages(before, after, classes, forgotten)[:3]
    where = "" if after.validation is not None else ", by stored labels"
    doubts += [
        f"class {damage.name} lost {100 * damage.loss:.0f} points "
        f"({damage.before.value:.0%} to {damage.after.value:.0%}{where})"
        for damage in lost
        if damage.loss > damage.tolerated(len(classes))
    ]


def _told(share: Share) -> str:
    return f"{share.right:,} of {share.of:,} ({share.value:.0%})"
