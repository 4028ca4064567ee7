"""What the rules of the verdict read and find: the rows, and where one number stands between two others."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch

from expunge.evaluation.rows import Row, half_width
from expunge.evaluation.thresholds import THRESHOLDS, allowed, sampling_error
from expunge.metrics.base import Measurement
from expunge.tasks.base import Problem

Labels = Literal["right", "wrong", "unknown"]


@dataclass(frozen=True)
class Facts:
    """The measurements, and what they were taken on.

    Args:
        rows: name -> row.
        n_forget: examples in the forget set.
        n_retain: the other training examples.
        n_test: test examples outside the classes that are forgotten whole; 0 where none were given.
        n_forget_test: test examples of these.
        n_per_class: the fewest test examples of a class that stays.
        n_classes: number of classes.
        whole_classes: the forget set is every training example of some classes.
        labels: whether the given labels of the forget set are right; "wrong" where any is known not to be, or where
            it was said that they are.
        roles: the models that were given.
        classes: their names, where they are known.
    """

    rows: Mapping[str, Row]
    n_forget: int
    n_retain: int
    n_test: int
    n_forget_test: int
    n_per_class: int
    n_classes: int
    whole_classes: bool
    labels: Labels
    roles: tuple[str, ...]
    classes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        rows: Iterable[Row],
        problem: Problem,
        roles: Iterable[str],
        labels: Labels,
        classes: Sequence[str] = (),
    ) -> Facts:
        """Count what the rules need."""
        sets, split = problem.truth.sets, problem.split
        test = sets.get("remaining_test")
        counts = [] if test is None else torch.bincount(test.labels, minlength=problem.n_classes).tolist()
        return cls(
            rows={row.name: row for row in rows},
            n_forget=len(split.forget_positions),
            n_retain=len(split.train) - len(split.forget_positions),
            n_test=sum(counts),
            n_forget_test=len(sets.get("forget_test", ())),
            n_per_class=min((count for count in counts if count), default=0),
            n_classes=problem.n_classes,
            whole_classes=bool(split.forget_classes),
            labels=labels,
            roles=tuple(roles),
            classes=tuple(classes),
        )

    @property
    def reference(self) -> str:
        """The model that the unlearned one is held against, or nothing.

        Where labels are known to be wrong an oracle comes first: a model retrained without the forget set
        has learned the corruption that nobody listed.
        """
        order = ("oracle", "retrained") if self.labels == "wrong" else ("retrained", "oracle")
        return next((role for role in order if role in self.roles), "")

    def class_name(self, label: int) -> str:
        """Return the name of a class, its number where names are not known."""
        return self.classes[label] if self.classes else str(label)

    def value(self, name: str, role: str) -> float | None:
        """Return a number of a model, ``None`` where it was not measured or is not defined."""
        return self.rows[name].value(role) if name in self.rows else None

    def measurement(self, name: str, role: str) -> Measurement | None:
        """Return the same with its interval."""
        return self.rows[name].models.get(role) if name in self.rows else None

    def floor(self, name: str) -> float | None:
        """Return the retrain-against-retrain floor of a number, where it is known."""
        return self.rows[name].floor if name in self.rows else None


@dataclass(frozen=True)
class Compared:
    """One number of the unlearned model between that of the original and a reference.

    ``role``: the reference in words; ``allowed``: the largest difference that is no finding.
    """

    name: str
    before: float
    after: float
    reference: float
    role: str
    allowed: float

    @property
    def tells(self) -> bool:
        """Whether the number tells the original from the reference at all."""
        return abs(self.before - self.reference) > self.allowed

    @property
    def left(self) -> float:
        """(after - reference) / (before - reference): 1 as before, 0 as the reference."""
        return (self.after - self.reference) / (self.before - self.reference)

    @property
    def remains(self) -> bool:
        """Whether the unlearned model is told from the reference, on the original's side."""
        return self.tells and self.left > 0 and abs(self.after - self.reference) > self.allowed

    @property
    def beyond(self) -> bool:
        """Whether the number lies below those of both others."""
        return min(self.before, self.reference) - self.after > self.allowed

    def numbers(self) -> dict[str, float]:
        """The numbers by name."""
        return {name: getattr(self, name) for name in ("before", "after", "reference", "allowed")}


def _compare(
    facts: Facts, name: str, role: str, margin: float, *, error: float = 0.0, count: int | None = None
) -> Iterator[Compared]:
    """Compare a number that all three models have; with ``count`` it is an accuracy on so many examples."""
    before, after, reference = (facts.value(name, model) for model in ("original", "unlearned", role))
    if before is None or after is None or reference is None:
        return
    if count is not None:
        error = sampling_error(reference, count)
    yield Compared(name, before, after, reference, role, allowed(margin, facts.floor(name), error))


def forget_accuracy(facts: Facts) -> Compared | None:
    """Compare the accuracy on the forget set, given labels.

    Without a reference :func:`_expected` takes its place.
    """
    name = "forget_accuracy"
    before, after = facts.value(name, "original"), facts.value(name, "unlearned")
    reference, role = facts.value(name, facts.reference), facts.reference
    if reference is None:
        reference, role = _expected(facts)
    if before is None or after is None or reference is None:
        return None
    limit = allowed(THRESHOLDS.forget, facts.floor(name), sampling_error(reference, facts.n_forget))
    return Compared(name, before, after, reference, role, limit)


def _expected(facts: Facts) -> tuple[float | None, str]:
    """Return the accuracy on the forget set that is expected without a reference, and in words what it is.

    Of a class that is forgotten whole it is 0. Of labels known to be wrong it is the share of unseen examples of other
    classes that are given the same labels by mistake, by the original or the unlearned model, whichever makes fewer;
    of right ones what the original scores on unseen examples of the same classes.
    """
    if facts.whole_classes:
        return 0.0, "expected"
    if facts.labels == "wrong":
        mistaken = [facts.value("unseen_given_by_mistake", role) for role in ("original", "unlearned")]
        known = [share for share in mistaken if share is not None]
        return (min(known), "on unseen rows of other classes") if known else (0.0, "expected")
    if facts.labels == "right":
        return facts.value("unseen_like_forget", "original"), "on unseen rows of these classes"
    return None, ""


def attacks(facts: Facts) -> Iterator[Compared]:
    """Compare the AUC of the confidence and the entropy attack; without a reference there is none to compare.

    Beside the margin stands the uncertainty of both AUC, from their intervals. Where labels are wrong only an
    oracle is a reference: a healed example is answered with confidence, by its true label, which a model that
    never saw it need not do.
    """
    if facts.labels == "wrong" and facts.reference != "oracle":
        return
    for name in ("confidence_attack", "entropy_attack_auc"):
        widths = (half_width(facts.measurement(name, role)) for role in ("unlearned", facts.reference))
        yield from _compare(facts, name, facts.reference, THRESHOLDS.attack, error=math.hypot(*widths))


def probes(facts: Facts) -> Iterator[Compared]:
    """Compare what probes of the layers tell of the forgotten classes, and the information difference index.

    Only the retrained model is a reference here: an oracle has seen the examples.
    """
    for name in facts.rows:
        if name.startswith(("class_mean_probe", "linear_probe_", "nearest_mean_")):
            yield from _compare(facts, name, "retrained", THRESHOLDS.probe, count=facts.n_forget_test)
    yield from _compare(facts, "idi", "retrained", THRESHOLDS.information)


Outcome = Literal[
    "little to repair",
    "damaged utility",
    "did not forget",
    "partly forgot",
    "hidden, not forgotten",
    "partly healed",
    "lost some utility",
    "over-forgot",
    "undecided",
    "forgot",
]


@dataclass(frozen=True)
class Finding:
    """What a rule found: in words, in a sentence with the numbers it rests on, and these by name."""

    outcome: Outcome
    sentence: str
    numbers: Mapping[str, float] = field(default_factory=dict)


def points(share: float) -> str:
    """Return a difference of shares in percentage points."""
    return f"{100 * share:.1f} points"
