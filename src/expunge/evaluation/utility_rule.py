"""The rule of the verdict on what unlearning cost: accuracy on what was to stay."""

from __future__ import annotations

from expunge.evaluation.facts import Facts
from expunge.evaluation.judgements import Finding, points
from expunge.evaluation.thresholds import Thresholds, allowed, sampling_error


def damaged_utility(facts: Facts, thresholds: Thresholds) -> list[Finding]:
    """Test accuracy, or that of one class, below both the original's and the reference's by more than is allowed.

    More than ``thresholds.damage`` times what is allowed makes "damaged utility", less "lost some utility". Without
    test examples accuracy on the retain set is read, and ``thresholds.by_heart`` is the bound between the two.
    """
    if not facts.n_test:
        return _lost(facts, thresholds, "retain_accuracy", "accuracy on the retain set", facts.n_retain)
    found = _lost(facts, thresholds, "test_accuracy", "test accuracy", facts.n_test)
    return found + _damaged_class(facts, thresholds)


def _lost(facts: Facts, thresholds: Thresholds, name: str, said: str, count: int) -> list[Finding]:
    after = facts.value(name, "unlearned")
    others = {role: facts.value(name, role) for role in ("original", facts.reference)}
    known = {role: value for role, value in others.items() if value is not None}
    if after is None or not known:
        return []
    role, lowest = min(known.items(), key=lambda item: item[1])
    limit = allowed(thresholds.utility, facts.floor(name), sampling_error(lowest, count, thresholds.level))
    if lowest - after <= limit:
        return []
    by_heart = (
        ""
        if facts.n_test
        else " (given labels; without test data this may be damage, or what was known by heart)"
    )
    most = thresholds.damage * limit if facts.n_test else max(limit, thresholds.by_heart)
    return [
        Finding(
            "damaged utility" if lowest - after > most else "lost some utility",
            f"{said} is {after:.1%}, {points(lowest - after)} below the {role} model's {lowest:.1%}; {points(limit)} "
            f"are tolerated{by_heart}",
            {"after": after, "lowest": lowest, "allowed": limit},
        )
    ]


def _damaged_class(facts: Facts, thresholds: Thresholds) -> list[Finding]:
    drops = {label: drop for label in range(facts.n_classes) if (drop := _drop(facts, label)) is not None}
    accuracy = facts.value("test_accuracy", "original")
    if not drops or accuracy is None:
        return []
    worst = max(drops, key=lambda label: drops[label])
    # The largest of n_classes drops is looked at.
    error = sampling_error(accuracy, facts.n_per_class, thresholds.level / facts.n_classes)
    limit = allowed(thresholds.class_utility, facts.floor(f"class_damage_{worst}"), error)
    if drops[worst] <= limit:
        return []
    against = f"original and {facts.reference} model" if facts.reference else "original"
    return [
        Finding(
            "damaged utility" if drops[worst] > thresholds.damage * limit else "lost some utility",
            f"class {facts.class_name(worst)} lost {points(drops[worst])} of its test accuracy against the {against}; "
            f"{points(limit)} are tolerated",
            {"class": worst, "drop": drops[worst], "allowed": limit},
        )
    ]


def _drop(facts: Facts, label: int) -> float | None:
    """Return what a class lost against the original and the reference: the smaller of the two."""
    mine, theirs = (facts.value(f"class_damage_{label}", role) for role in ("unlearned", facts.reference))
    # Both are drops below the original's accuracy, so that it cancels in their difference.
    return mine if mine is None or theirs is None else min(mine, mine - theirs)
