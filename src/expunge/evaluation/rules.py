"""The rules of the verdict: each reads the facts and returns what it finds, with its numbers."""

from __future__ import annotations

from expunge.evaluation.audit_only import REACHED, Relearned
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
from expunge.evaluation.thresholds import Thresholds, allowed, sampling_error
from expunge.metrics.base import Measurement
from expunge.metrics.recalibrated import ENDING


def did_not_forget(facts: Facts, thresholds: Thresholds) -> list[Finding]:
    """Accuracy on the forget set, or an attack on it, still on the original's side of the reference.

    At least ``thresholds.left`` of the way makes "did not forget", less "partly forgot".
    """
    compared = forget_accuracy(facts, thresholds)
    if compared is None:
        return _without_reference(facts, thresholds)
    found = []
    if compared.remains:
        found.append(
            Finding(
                _how_much(compared, thresholds),
                f"the given labels of {compared.after:.1%} of the forget set are still predicted (original "
                f"{compared.before:.1%}, {_said(compared, '.1%')}; {points(compared.allowed)} are tolerated)",
                compared.numbers(),
            )
        )
    found += [
        Finding(
            _how_much(attack, thresholds),
            f"the {attack_name(attack.name)} tells the forget set from unseen examples with AUC {attack.after:.2f} "
            f"(original {attack.before:.2f}, {_said(attack, '.2f')}; {attack.allowed:.2f} is tolerated)",
            attack.numbers(),
        )
        for attack in attacks(facts, thresholds)
        # Below the reference's it is no memory that is left; see over_forgot.
        if attack.remains and attack.after > attack.reference
    ]
    return found


def _how_much(compared: Compared, thresholds: Thresholds) -> Outcome:
    return "did not forget" if compared.left >= thresholds.left else "partly forgot"


def _without_reference(facts: Facts, thresholds: Thresholds) -> list[Finding]:
    """Good examples and no reference: as accurate as on the retain set, and an attack clearly above 1/2."""
    forget, retain = (facts.value(name, "unlearned") for name in ("forget_accuracy", "retain_accuracy"))
    attack = facts.measurement("confidence_attack", "unlearned")
    if forget is None or retain is None or attack is None or attack.value is None or attack.low is None:
        return []
    limit = allowed(thresholds.forget, None, sampling_error(retain, facts.n_forget, thresholds.level))
    if forget < retain - limit or attack.low <= 0.5 + thresholds.attack:
        return []
    return [
        Finding(
            "did not forget",
            f"accuracy on the forget set is {forget:.1%}, on the retain set {retain:.1%}, and the confidence attack "
            f"tells the forget set from unseen examples with AUC {attack.value:.2f} (at least {attack.low:.2f}; 1/2 "
            "would tell nothing)",
            {"forget": forget, "retain": retain, "auc": attack.value, "auc_low": attack.low},
        )
    ]


def over_forgot(facts: Facts, thresholds: Thresholds) -> list[Finding]:
    """Accuracy on the forget set, or an attack on it, below both the reference's and the original's.

    Without a reference only an attack clearly below 1/2 says so. Where the given labels are wrong nothing is too
    little: such a label is to look unfamiliar.
    """
    if facts.labels == "wrong":
        return []
    if not facts.reference:
        return _less_familiar(facts, thresholds)
    found = []
    compared = forget_accuracy(facts, thresholds)
    if compared is not None and compared.beyond:
        found.append(
            Finding(
                "over-forgot",
                f"accuracy on the forget set is {compared.after:.1%}, below the {compared.role} model's "
                f"{compared.reference:.1%} by more than the {points(compared.allowed)} that are tolerated",
                compared.numbers(),
            )
        )
    found += [
        Finding(
            "over-forgot",
            f"the {attack_name(attack.name)} has AUC {attack.after:.2f}, below the {attack.role} model's "
            f"{attack.reference:.2f} by more than {attack.allowed:.2f}: the forget set looks less familiar than new "
            "examples do",
            attack.numbers(),
        )
        for attack in attacks(facts, thresholds)
        if attack.beyond
    ]
    return found


def _less_familiar(facts: Facts, thresholds: Thresholds) -> list[Finding]:
    attack = facts.measurement("confidence_attack", "unlearned")
    if not (facts.labels == "right" or facts.whole_classes) or not below_half(attack, thresholds):
        return []
    assert attack is not None
    assert attack.value is not None
    return [
        Finding(
            "over-forgot",
            f"the confidence attack has AUC {attack.value:.2f}, at most {attack.high:.2f}: the forget set looks less "
            "familiar than unseen examples do",
            {"auc": attack.value},
        )
    ]


def partly_healed(facts: Facts, thresholds: Thresholds) -> list[Finding]:
    """Too few of the labels known to be wrong answered by the true one, in the forget set or outside it.

    What is expected is the reference's share, all of them without one; ``thresholds.healed`` of that is enough.
    """
    found = []
    for part, where in (("known", "in the forget set"), ("unknown", "outside the forget set")):
        name = f"healed_{part}"
        after, reference = facts.value(name, "unlearned"), facts.value(name, facts.reference)
        least = thresholds.healed * (1.0 if reference is None else reference)
        if after is not None and after < least:
            against = "" if reference is None else f" ({facts.reference} {reference:.1%})"
            found.append(
                Finding(
                    "partly healed",
                    f"of the wrong labels {where} {after:.1%} are now answered by the true one{against}; {least:.1%} "
                    "are expected at least",
                    {"after": after, "least": least},
                )
            )
    return found


def below_half(attack: Measurement | None, thresholds: Thresholds) -> bool:
    """Whether the whole interval of an AUC lies below 1/2 by more than the margin."""
    return attack is not None and attack.high is not None and attack.high < 0.5 - thresholds.attack


def hidden(facts: Facts, thresholds: Thresholds) -> list[Finding]:
    """Probes of the layers, or relearning, that find what the answers no longer show.

    Read it where the answers pass; it needs a retrained model.
    """
    found = [
        Finding(
            "hidden, not forgotten",
            f"{probe_name(probe.name)}: {probe.after:.2f}, original {probe.before:.2f}, retrained "
            f"{probe.reference:.2f} ({probe.allowed:.2f} is tolerated)",
            probe.numbers(),
        )
        for probe in probes(facts, thresholds)
        if probe.remains and probe.left >= thresholds.left
    ]
    return found + _relearns_fast(facts, thresholds)


def hidden_by_statistics(facts: Facts, thresholds: Thresholds) -> list[Finding]:
    """Given labels of the forget set that are predicted again with normalisation statistics of the retain set.

    Read it where the answers of the model as returned pass. At least ``thresholds.left`` of the way from the answers as
    returned back to the original's counts.
    """
    name = "forget_accuracy"
    before, after = facts.value(name, "original"), facts.value(name, "unlearned")
    again, reference = (
        facts.value(name + ENDING, role) for role in ("unlearned", facts.reference or "expected")
    )
    if before is None or after is None or again is None:
        return []
    error = sampling_error(after, facts.n_forget, thresholds.level)
    limit = allowed(thresholds.forget, facts.floor(name + ENDING), error)
    lowest = max(after, reference or 0.0)
    if again - lowest <= limit or again - after < thresholds.left * (before - after):
        return []
    against = "" if reference is None else f", {facts.reference} {reference:.1%}"
    return [
        Finding(
            "hidden, not forgotten",
            f"hidden by normalisation statistics: with those of the retained data, and the same weights, the stored "
            f"labels of {again:.1%} of the forget set are predicted again (as returned {after:.1%}, original "
            f"{before:.1%}{against})",
            {"after": after, "recalibrated": again, "before": before},
        )
    ]


def _relearns_fast(facts: Facts, thresholds: Thresholds) -> list[Finding]:
    steps = facts.value("relearn_time", "unlearned")
    fewest, said = fewest_steps(facts)
    if steps is None or steps >= thresholds.relearn * fewest:
        return []
    return [
        Finding(
            "hidden, not forgotten",
            f"the forget set is learned again after {steps:.0f} steps, {said}",
            {"steps": steps, "fewest": fewest},
        )
    ]


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


def telling(facts: Facts, thresholds: Thresholds) -> list[str]:
    """Return the names of the numbers that tell the original from the reference, or from what is expected."""
    compared = [*attacks(facts, thresholds), *probes(facts, thresholds)]
    forget = forget_accuracy(facts, thresholds)
    names = [entry.name for entry in ([forget] if forget else []) + compared if entry.tells]
    before = facts.measurement("confidence_attack", "original")
    if not facts.reference and before and before.low is not None and before.low > 0.5 + thresholds.attack:
        names.append("confidence_attack")
    return names


def looks_inside(facts: Facts, thresholds: Thresholds) -> bool:
    """Whether a probe, or relearning, tells the original from the retrained model, so that it could find anything."""
    return any(probe.tells for probe in probes(facts, thresholds)) or fewest_steps(facts)[0] > 0


def attack_name(name: str) -> str:
    """Return an attack's name in words."""
    return name.removesuffix("_auc").replace("_", " ")


def probe_name(name: str) -> str:
    """Return a probe's name in words."""
    if name == "idi":
        return "information difference index (1 like the original, 0 like the retrained model)"
    kind, _, layer = name.partition("_probe_") if "_probe_" in name else name.partition("_mean_")
    if name == "class_mean_probe":
        return "the forgotten class is still told from what enters the head, by the nearest class mean"
    kind = {"linear": "a linear probe", "nearest": "the nearest class mean"}[kind]
    return f"the forgotten class is still told from layer {layer}, by {kind}"


def _said(compared: Compared, form: str) -> str:
    return f"{compared.role} {compared.reference:{form}}"


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
