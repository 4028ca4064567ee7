"""The rules of the verdict: each reads the facts and yields what it finds, with its numbers."""

from __future__ import annotations

from collections.abc import Iterator

from expunge.evaluation.audit_metrics import REACHED, Relearned
from expunge.evaluation.facts import (
    Compared,
    Facts,
    Finding,
    Outcome,
    attacks,
    forget_accuracy,
    points,
    probes,
)
from expunge.evaluation.thresholds import THRESHOLDS, allowed, sampling_error
from expunge.metrics.base import Measurement
from expunge.metrics.recalibrated import ENDING


def did_not_forget(facts: Facts) -> Iterator[Finding]:
    """Accuracy on the forget set, or an attack on it, still on the original's side of the reference.

    At least the threshold ``left`` of the way makes "did not forget", less "partly forgot".
    """
    compared = forget_accuracy(facts)
    if compared is None:
        yield from _without_reference(facts)
        return
    if compared.remains:
        yield Finding(
            _how_much(compared),
            f"the given labels of {compared.after:.1%} of the forget set are still predicted (original "
            f"{compared.before:.1%}, {compared.role} {compared.reference:.1%}; {points(compared.allowed)} are "
            "tolerated)",
            compared.numbers(),
        )
    for attack in attacks(facts):
        # Below the reference's it is no memory that is left; see over_forgot.
        if attack.remains and attack.after > attack.reference:
            yield Finding(
                _how_much(attack),
                f"the {_attack_name(attack.name)} tells the forget set from unseen examples with AUC "
                f"{attack.after:.2f} (original {attack.before:.2f}, {attack.role} {attack.reference:.2f}; "
                f"{attack.allowed:.2f} is tolerated)",
                attack.numbers(),
            )


def _how_much(compared: Compared) -> Outcome:
    return "did not forget" if compared.left >= THRESHOLDS.left else "partly forgot"


def _without_reference(facts: Facts) -> Iterator[Finding]:
    """Good examples and no reference: as accurate as on the retain set, and an attack clearly above 1/2."""
    forget, retain = (facts.value(name, "unlearned") for name in ("forget_accuracy", "retain_accuracy"))
    attack = facts.measurement("confidence_attack", "unlearned")
    if forget is None or retain is None or attack is None or attack.value is None or attack.low is None:
        return
    limit = allowed(THRESHOLDS.forget, None, sampling_error(retain, facts.n_forget))
    if forget >= retain - limit and attack.low > 0.5 + THRESHOLDS.attack:
        yield Finding(
            "did not forget",
            f"accuracy on the forget set is {forget:.1%}, on the retain set {retain:.1%}, and the confidence attack "
            f"tells the forget set from unseen examples with AUC {attack.value:.2f} (at least {attack.low:.2f}; 1/2 "
            "would tell nothing)",
            {"forget": forget, "retain": retain, "auc": attack.value, "auc_low": attack.low},
        )


def over_forgot(facts: Facts) -> Iterator[Finding]:
    """Accuracy on the forget set, or an attack on it, below both the reference's and the original's.

    Without a reference only an attack clearly below 1/2 says so. Where the given labels are wrong nothing is too
    little: such a label is to look unfamiliar.
    """
    if facts.labels == "wrong":
        return
    if not facts.reference:
        yield from _less_familiar(facts)
        return
    compared = forget_accuracy(facts)
    if compared is not None and compared.beyond:
        yield Finding(
            "over-forgot",
            f"accuracy on the forget set is {compared.after:.1%}, below the {compared.role} model's "
            f"{compared.reference:.1%} by more than the {points(compared.allowed)} that are tolerated",
            compared.numbers(),
        )
    for attack in attacks(facts):
        if attack.beyond:
            yield Finding(
                "over-forgot",
                f"the {_attack_name(attack.name)} has AUC {attack.after:.2f}, below the {attack.role} model's "
                f"{attack.reference:.2f} by more than {attack.allowed:.2f}: the forget set looks less familiar than "
                "new examples do",
                attack.numbers(),
            )


def _less_familiar(facts: Facts) -> Iterator[Finding]:
    attack = facts.measurement("confidence_attack", "unlearned")
    good = facts.labels == "right" or facts.whole_classes
    if good and attack is not None and attack.value is not None and below_half(attack):
        yield Finding(
            "over-forgot",
            f"the confidence attack has AUC {attack.value:.2f}, at most {attack.high:.2f}: the forget set looks less "
            "familiar than unseen examples do",
            {"auc": attack.value},
        )


def below_half(attack: Measurement | None) -> bool:
    """Whether the whole interval of an AUC lies below 1/2 by more than the margin."""
    return attack is not None and attack.high is not None and attack.high < 0.5 - THRESHOLDS.attack


def partly_healed(facts: Facts) -> Iterator[Finding]:
    """Too few of the labels known to be wrong answered by the true one, in the forget set or outside it.

    What is expected is the reference's share, all of them without one; the threshold ``healed`` of that is enough.
    """
    for part, where in (("known", "in the forget set"), ("unknown", "outside the forget set")):
        name = f"healed_{part}"
        after, reference = facts.value(name, "unlearned"), facts.value(name, facts.reference)
        least = THRESHOLDS.healed * (1.0 if reference is None else reference)
        if after is not None and after < least:
            against = "" if reference is None else f" ({facts.reference} {reference:.1%})"
            yield Finding(
                "partly healed",
                f"of the wrong labels {where} {after:.1%} are now answered by the true one{against}; {least:.1%} "
                "are expected at least",
                {"after": after, "least": least},
            )


def hidden(facts: Facts) -> Iterator[Finding]:
    """Probes of the layers, or relearning, that find what the answers no longer show.

    Read it where the answers pass; it needs a retrained model.
    """
    for probe in probes(facts):
        if probe.remains and probe.left >= THRESHOLDS.left:
            yield Finding(
                "hidden, not forgotten",
                f"{_probe_name(probe.name)}: {probe.after:.2f}, original {probe.before:.2f}, retrained "
                f"{probe.reference:.2f} ({probe.allowed:.2f} is tolerated)",
                probe.numbers(),
            )
    steps = facts.value("relearn_time", "unlearned")
    fewest, said = fewest_steps(facts)
    if steps is not None and steps < THRESHOLDS.relearn * fewest:
        yield Finding(
            "hidden, not forgotten",
            f"the forget set is learned again after {steps:.0f} steps, {said}",
            {"steps": steps, "fewest": fewest},
        )


def hidden_by_statistics(facts: Facts) -> Iterator[Finding]:
    """Given labels of the forget set that are predicted again with normalisation statistics of the retain set.

    Read it where the answers of the model as returned pass. At least the threshold ``left`` of the way from the
    answers as returned back to the original's counts.
    """
    name = "forget_accuracy"
    before, after = facts.value(name, "original"), facts.value(name, "unlearned")
    again, reference = (facts.value(name + ENDING, role) for role in ("unlearned", facts.reference))
    if before is None or after is None or again is None:
        return
    limit = allowed(THRESHOLDS.forget, facts.floor(name + ENDING), sampling_error(after, facts.n_forget))
    lowest = max(after, reference or 0.0)
    if again - lowest <= limit or again - after < THRESHOLDS.left * (before - after):
        return
    against = "" if reference is None else f", {facts.reference} {reference:.1%}"
    yield Finding(
        "hidden, not forgotten",
        f"hidden by normalisation statistics: with those of the retained data, and the same weights, the stored "
        f"labels of {again:.1%} of the forget set are predicted again (as returned {after:.1%}, original "
        f"{before:.1%}{against})",
        {"after": after, "recalibrated": again, "before": before},
    )


def fewest_steps(facts: Facts) -> tuple[float, str]:
    """Return the fewest relearning steps of a retrained model, 0 where they are not known, and the same in words."""
    row = facts.rows.get("relearn_time")
    steps, floor = facts.value("relearn_time", "retrained"), facts.floor("relearn_time") or 0.0
    if steps is not None:
        another = f", another retraining no sooner than after {steps - floor:.0f}" if floor else ""
        return steps - floor, f"by the retrained model after {steps:.0f}{another}"
    if row and isinstance(row.metric, Relearned) and facts.value(REACHED, "retrained") is not None:
        # It was trained up to the cap and is not there.
        return float(row.metric.cap), f"by the retrained model not within {row.metric.cap}"
    return 0.0, ""


def telling(facts: Facts) -> list[str]:
    """Return the names of the numbers that tell the original from the reference, or from what is expected."""
    forget = forget_accuracy(facts)
    compared = [*([forget] if forget else []), *attacks(facts), *probes(facts)]
    names = [entry.name for entry in compared if entry.tells]
    before = facts.measurement("confidence_attack", "original")
    if not facts.reference and before and before.low is not None and before.low > 0.5 + THRESHOLDS.attack:
        names.append("confidence_attack")
    return names


def looks_inside(facts: Facts) -> bool:
    """Whether a probe, or relearning, tells the original from the retrained model, so that it could find anything."""
    return any(probe.tells for probe in probes(facts)) or fewest_steps(facts)[0] > 0


def _attack_name(name: str) -> str:
    return name.removesuffix("_auc").replace("_", " ")


def _probe_name(name: str) -> str:
    if name == "idi":
        return "information difference index (1 like the original, 0 like the retrained model)"
    if name == "class_mean_probe":
        return "the forgotten class is still told from what enters the head, by the nearest class mean"
    kind, _, layer = name.partition("_probe_" if "_probe_" in name else "_mean_")
    by = {"linear": "a linear probe", "nearest": "the nearest class mean"}[kind]
    return f"the forgotten class is still told from layer {layer}, by {by}"


def damaged_utility(facts: Facts) -> Iterator[Finding]:
    """Test accuracy, or that of one class, below both the original's and the reference's by more than is allowed.

    More than the threshold ``damage`` times what is allowed makes "damaged utility", less "lost some utility". Without
    test examples accuracy on the retain set is read, and ``by_heart`` is the bound between the two.
    """
    if facts.n_test:
        yield from _lost(facts, "test_accuracy", "test accuracy", facts.n_test)
        yield from _damaged_class(facts)
    else:
        yield from _lost(facts, "retain_accuracy", "accuracy on the retain set", facts.n_retain)


def _lost(facts: Facts, name: str, said: str, count: int) -> Iterator[Finding]:
    after = facts.value(name, "unlearned")
    others = {role: facts.value(name, role) for role in ("original", facts.reference)}
    known = {role: value for role, value in others.items() if value is not None}
    if after is None or not known:
        return
    role, lowest = min(known.items(), key=lambda item: item[1])
    limit = allowed(THRESHOLDS.utility, facts.floor(name), sampling_error(lowest, count))
    if lowest - after <= limit:
        return
    most, by_heart = THRESHOLDS.damage * limit, ""
    if not facts.n_test:
        most = max(limit, THRESHOLDS.by_heart)
        by_heart = " (given labels; without test data this may be damage, or what was known by heart)"
    yield Finding(
        "damaged utility" if lowest - after > most else "lost some utility",
        f"{said} is {after:.1%}, {points(lowest - after)} below the {role} model's {lowest:.1%}; {points(limit)} "
        f"are tolerated{by_heart}",
        {"after": after, "lowest": lowest, "allowed": limit},
    )


def _damaged_class(facts: Facts) -> Iterator[Finding]:
    drops = {label: drop for label in range(facts.n_classes) if (drop := _drop(facts, label)) is not None}
    accuracy = facts.value("test_accuracy", "original")
    if not drops or accuracy is None:
        return
    worst = max(drops, key=lambda label: drops[label])
    # The largest of n_classes drops is looked at.
    error = sampling_error(accuracy, facts.n_per_class, THRESHOLDS.level / facts.n_classes)
    limit = allowed(THRESHOLDS.class_utility, facts.floor(f"class_damage_{worst}"), error)
    if drops[worst] <= limit:
        return
    against = f"original and {facts.reference} model" if facts.reference else "original"
    yield Finding(
        "damaged utility" if drops[worst] > THRESHOLDS.damage * limit else "lost some utility",
        f"class {facts.class_name(worst)} lost {points(drops[worst])} of its test accuracy against the {against}; "
        f"{points(limit)} are tolerated",
        {"class": worst, "drop": drops[worst], "allowed": limit},
    )


def _drop(facts: Facts, label: int) -> float | None:
    """Return what a class lost against the original and the reference: the smaller of the two."""
    mine, theirs = (facts.value(f"class_damage_{label}", role) for role in ("unlearned", facts.reference))
    # Both are drops below the original's accuracy, so that it cancels in their difference.
    return mine if mine is None or theirs is None else min(mine, mine - theirs)
