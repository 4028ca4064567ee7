from __future__ import annotations

import pytest

from expunge.errors import InvalidInput, UnknownName
from expunge.evaluation.evaluate import compared, load_metrics, references_of
from expunge.metrics.base import Compares


class Sized:
    """No metric."""


def test_metrics_are_made_with_their_defaults() -> None:
    assert [metric.name for metric in load_metrics(["tow", "js_divergence"])] == ["tow", "js_divergence"]


def test_wrong_names() -> None:
    with pytest.raises(UnknownName, match=r"unknown metric 'towe'.*tow"):
        load_metrics(["towe"])
    with pytest.raises(InvalidInput, match=r"not a subclass of expunge.metrics.base.Metric"):
        load_metrics([f"{__name__}:Sized"])


@pytest.mark.parametrize(
    ("name", "corrupted", "expected"),
    [
        ("utility", True, Compares.NOTHING),
        ("rf_jsd", True, Compares.ORIGINAL),
        ("tow", True, Compares.RETRAINED),
        # The aim of an attack is the reference's value, which it does not read itself.
        ("confidence_attack", False, Compares.RETRAINED),
        ("confidence_attack", True, Compares.RETRAINED | Compares.ORACLE),
        ("anamnesis_index", False, Compares.RETRAINED | Compares.ORIGINAL),
    ],
)
def test_what_a_metric_is_compared_with(name: str, corrupted: bool, expected: Compares) -> None:
    assert compared(load_metrics([name])[0], corrupted=corrupted) == expected


@pytest.mark.parametrize(
    ("names", "corrupted", "roles"),
    [
        ([], True, ()),
        # Populations have retrained models of their own.
        (["ulira", "klom", "ruli", "forgetting_quality"], True, ()),
        (["utility", "rf_jsd"], True, ()),
        (["tow"], True, ("retrained", "second_retrained")),
        (["tow", "loss_attack"], False, ("retrained", "second_retrained")),
        (["rf_jsd", "loss_attack"], True, ("retrained", "second_retrained", "oracle")),
    ],
)
def test_roles(names: list[str], corrupted: bool, roles: tuple[str, ...]) -> None:
    assert references_of(load_metrics(names), corrupted=corrupted) == roles
