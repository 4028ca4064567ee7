"""Which method to use, from what is known of the case; and the settings it starts from."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

from expunge.errors import InvalidInput
from expunge.methods.base import Method
from expunge.methods.rem import REM

Purpose = Literal["heal", "forget"]
PERTURBING = ("natmu", "amun", "unsir")
"""Methods that make new inputs out of given ones, which token ids do not allow."""

HIDING = ("logit_mask",)
"""Methods that keep a class from being answered and take nothing out."""

_SMALL = 20_000
_PASS = 12
"""Steps that one pass over a small training set is cut into."""


@dataclass(frozen=True, kw_only=True)
class Situation:
    """What is known of the case.

    Args:
        purpose: "heal" what bad examples did to the model, or "forget" good ones.
        whole_classes: whether the list is every example of some classes.
        retain: whether the remaining training data may be read.
        codes: whether the checkpoint holds mnemonic codes.
        images: whether an input is (C, H, W).
        floating: whether inputs are floating-point numbers, not token ids.
        attachable: whether dedicated neurons can stand beside some layer of the network.
        discovery: share of the bad examples that the list holds, in (0, 1]; ``None`` where nobody knows.

    Raises:
        InvalidInput: an unknown purpose, or a share out of range.
    """

    purpose: Purpose = "heal"
    whole_classes: bool = False
    retain: bool = True
    codes: bool = False
    images: bool = True
    floating: bool = True
    attachable: bool = True
    discovery: float | None = None

    def __post_init__(self) -> None:
        if self.purpose not in ("heal", "forget"):
            raise InvalidInput(f"the purpose is 'heal' or 'forget', got {self.purpose!r}")
        if self.discovery is not None and not 0 < self.discovery <= 1:
            raise InvalidInput(
                f"the share of the bad examples that is known lies in (0, 1], got {self.discovery:g}"
            )


@dataclass(frozen=True)
class Choice:
    """A method, one sentence why, and the next best (empty where there is none)."""

    method: str
    why: str
    runner_up: str = ""


def choose(situation: Situation, known: Collection[str]) -> Choice:
    """Return the method for ``situation`` among the ``known`` names; the same input gives the same answer."""
    return _to_heal(situation, known) if situation.purpose == "heal" else _to_forget(situation)


def _to_heal(case: Situation, known: Collection[str]) -> Choice:
    if not case.retain:
        return Choice(
            "delete",
            "without the remaining data nothing can be repaired, only the listed rows undone: expect a loss of "
            "accuracy, and check it",
            "npo",
        )
    if not case.attachable:
        return Choice(
            "rem_without_redirection",
            "it heals what the list does not name too; this network has no layer beside which neurons could be "
            "added, as the full method does",
            "delete",
        )
    if case.discovery == 1:
        return Choice(
            "rem",
            "it removes the listed rows and repairs the rest; all bad rows are said to be known, so none is looked for",
            "rem_without_redirection",
        )
    if "relearn" in known:
        return Choice(
            "relearn",
            "it heals bad rows that the list does not name as well, and says which it found",
            "rem",
        )
    return Choice("rem", "it also heals bad rows that the list does not name", "rem_without_redirection")


def _to_forget(case: Situation) -> Choice:
    if case.retain and case.images and case.floating:
        return Choice(
            "natmu",
            "of the methods measured here it came nearest to a retrained model on classes and on samples of images",
            "amnesiac",
        )
    if case.retain:
        return Choice(
            "amnesiac",
            "it gives the forgotten rows other labels and goes on training, which works for inputs of any kind; "
            "it can forget more than retraining would",
            "npo",
        )
    if case.whole_classes and case.codes:
        return Choice(
            "mnemonic_code",
            "the model was trained with codes that stand for its classes, so that no data is needed",
            "logit_mask",
        )
    if case.whole_classes:
        return Choice(
            "logit_mask",
            "without data it only keeps the model from answering these classes; what it knows of them stays inside",
            "delete",
        )
    return Choice(
        "npo",
        "it needs the listed rows alone; nothing repairs what else it damages, so check the accuracy",
        "delete",
    )


def starting_settings(kind: type[Method], n_train: int, purpose: Purpose) -> dict[str, Any]:
    """Return the settings of ``kind`` that differ from its defaults for a training set of ``n_train`` rows.

    The published settings are for 50,000 images. Under 20,000 rows a batch is cut so that a pass has about
    twelve steps, but never made larger. REM's learning rate and open share are those that kept the accuracy
    of six small networks on digits (800 rows, 40 bad, 20 listed); twice the rate lost whole classes. Where bad
    rows are healed every stored label of the list is wrong: no share of them is to be kept, and a list that is
    short against the data is not to drown in it.
    """
    own = {entry.name: entry.default for entry in dataclasses.fields(kind)}
    wanted: dict[str, Any] = {}
    small = n_train < _SMALL
    if small and own.get("batch_size") is not None:
        wanted["batch_size"] = min(own["batch_size"], 2 ** max(3, round(math.log2(max(1, n_train / _PASS)))))
    if small and issubclass(kind, REM):
        wanted |= {"lr": 0.01, "open_share": 0.3}
    if purpose == "heal" and issubclass(kind, REM):
        wanted |= {"score_floor": 0.0, "erase_mean": True}
    return {name: value for name, value in wanted.items() if value != own[name]}
