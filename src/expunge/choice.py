"""Which method to use, from what is known of the case; ``clean``, ``advise`` and ``unlearn`` all ask here."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from expunge.errors import InvalidInput

if TYPE_CHECKING:
    from expunge.training.recipe import Recipe

Purpose = Literal["heal", "forget"]
RELEARN, RETRAIN = "relearn", "retrain"

_SMALL = 20_000
_PASS = 12
"""Steps that one pass over a small training set is cut into."""


@dataclass(frozen=True, kw_only=True)
class Situation:
    """What is known of the case, and what there is to work with."""

    purpose: Purpose = "heal"  # "heal" what bad examples did to the model, or "forget" good ones
    discovery: float | None = None  # share of the bad examples that is listed, in (0, 1]; where known
    regularity: float | None = None  # 0 (random) .. 0.5 (two classes exchanged) .. 1 (poison); where known
    retain: bool = True  # whether the remaining training data may be read
    forget: bool = True  # whether the listed examples are still there
    whole_classes: bool = False  # whether the list is every example of some classes
    codes: bool = False  # whether the checkpoint holds mnemonic codes
    images: bool = True  # whether an input is (C, H, W)
    floating: bool = True  # whether inputs are floating-point numbers, not token ids
    attachable: bool = True  # whether dedicated neurons can stand beside some layer of the network
    loosens: bool = True  # the network has no layer norms, or the weights its training began from are at hand
    recipe: bool = False  # whether it can be retrained: from a fresh initialisation, and it is known how
    price: float | None = None  # of the usual method, as a share of the first training; where known
    budget: float | None = None  # most to be spent, as a share of the first training; ``None`` for no limit

    def __post_init__(self) -> None:
        if self.purpose not in ("heal", "forget"):
            raise InvalidInput(f"the purpose is 'heal' or 'forget', got {self.purpose!r}")
        if self.discovery is not None and not 0 < self.discovery <= 1:
            raise InvalidInput(
                f"discovery is the share of the bad examples that is known, in (0, 1], got {self.discovery:g}; "
                "divide a percentage by 100, or leave it out if nobody knows"
            )
        if self.regularity is not None and not 0 <= self.regularity <= 1:
            raise InvalidInput(
                f"regularity must lie in [0, 1], got {self.regularity:g}; leave it out if nobody knows"
            )
        if self.budget is not None and not (self.budget > 0 and math.isfinite(self.budget)):
            raise InvalidInput(
                f"the budget is a share of a retraining and must be positive, got {self.budget:g}; 0.25 is a quarter"
            )


@dataclass(frozen=True)
class Choice:
    """A method, one sentence why, and the next best (empty where there is none)."""

    method: str
    why: str
    runner_up: str = ""


def choose(situation: Situation) -> Choice:
    """Return the method for ``situation``; the same situation gives the same answer everywhere.

    Raises:
        InvalidInput: there is nothing to work with.
    """
    return _to_heal(situation) if situation.purpose == "heal" else _to_forget(situation)


def _to_heal(case: Situation) -> Choice:
    affordable = case.budget is None or case.budget >= 1
    if not (case.retain or case.forget):
        raise InvalidInput(
            "neither the listed examples nor the remaining data are there, so nothing can be learned or unlearned; "
            "get one of them back"
        )
    if not case.forget:
        if case.recipe and affordable:
            return Choice(
                RETRAIN, "the listed examples are gone, so that they can only be left out", "l1_sparse"
            )
        return Choice(
            "l1_sparse",
            "it reads the remaining data alone; without the listed examples it takes little out, so retrain if you can",
        )
    if not case.retain:
        return Choice(
            "delete",
            "without the remaining data nothing can be repaired, only the listed rows undone: expect a loss of "
            "accuracy, and check it",
            "npo",
        )
    if case.recipe and affordable and case.price is not None and case.price > 1:
        return Choice(RETRAIN, _cheaper_to_retrain(case, case.price), RELEARN)
    if case.budget is not None and case.price is not None and case.price > case.budget:
        return Choice(
            "delete",
            f"relearning costs {case.price:.0%} of a retraining, more than the budget of {case.budget:.0%}; this reads "
            "the listed rows alone and repairs nothing else",
            "npo",
        )
    retraining = case.recipe and affordable and case.discovery == 1
    rem = "rem" if case.attachable else "rem_without_redirection"
    return Choice(RELEARN, _why_relearn(case), RETRAIN if retraining else rem)


def _cheaper_to_retrain(case: Situation, price: float) -> str:
    why = f"retraining without the listed rows is the better buy: relearning would cost {price:.0%} of it"
    if case.discovery == 1:
        more = " and heal no more"
    else:
        more = "; it learns again what the list does not name, so look for more of that first (expunge find)"
    return f"{why}{more}. If the training began from pretrained weights, give those"


def _why_relearn(case: Situation) -> str:
    if case.price is None:
        cost = "a few passes over the data"
    elif case.price < 1:
        cost = f"{case.price:.0%} of the first training"
    else:
        cost = (
            f"{case.price:.0%} of the first training (to repeat that without the listed rows would cost less)"
        )
    if case.discovery != 1:
        return (
            f"it costs {cost}, and heals bad rows that the list does not name too; retraining without the listed rows "
            "learns those again"
        )
    if case.price is not None and case.price >= 1:
        return f"it costs {cost}"
    return f"all bad rows are listed, so that retraining without them heals as much; relearning costs {cost}"


def _to_forget(case: Situation) -> Choice:
    affordable = case.budget is None or case.budget >= 1
    if case.retain and case.recipe and affordable and case.price is not None and case.price >= 1:
        return Choice(
            RETRAIN,
            f"it forgets by not having seen the rows, and costs less: unlearning would cost {case.price:.0%} of it",
            fine_tuned(case),
        )
    if loosened(case):
        return Choice(
            RELEARN,
            "it shakes loose what the network memorised and learns the rows that stay again, so that the forgotten "
            "ones are answered as unseen ones are",
            fine_tuned(case),
        )
    if case.retain and fine_tuned(case) == "natmu":
        return Choice(
            "natmu",
            "of the methods that fine-tune the network as it is, it came nearest to a retrained model on images",
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


def fine_tuned(case: Situation) -> str:
    """Return the method that forgets good rows by training the network on as it is; "natmu" blends images."""
    return "natmu" if case.images and case.floating else "amnesiac"


def loosened(case: Situation) -> bool:
    """Return whether good rows are best forgotten by relearning the others: samples do, whole classes are unlearned."""
    return case.purpose == "forget" and case.retain and case.loosens and not case.whole_classes


def purpose_settings(kind: Any, purpose: Purpose) -> dict[str, Any]:
    """Return the settings of ``kind`` that the purpose sets, whoever chose the method.

    Of good rows that are to be forgotten nothing is wrong with the labels, nor with those of rows like them.
    """
    if purpose == "heal" or "least_learned" not in {entry.name for entry in dataclasses.fields(kind)}:
        return {}
    unused = ("early_learning", "not_label", "own_label", "least_learned")
    return dict.fromkeys(unused, 0.0) | {"neighbours": False}


def starting_settings(kind: Any, n_train: int, purpose: Purpose, recipe: Recipe | None) -> dict[str, Any]:
    """Return the settings of ``kind`` that differ from its defaults here.

    The published settings are for 50,000 images. Under 20,000 rows a batch is cut so that a pass has about
    twelve steps, but never made larger. REM's learning rate and open share are those that kept the accuracy
    of six small networks on digits (800 rows, 40 bad, 20 listed); twice the rate lost whole classes. Where bad
    rows are healed every given label of the list is wrong: no share of them is to be kept, and a list that is
    short against the data is not to drown in it. Where good rows are forgotten ``relearn`` learns the others again,
    and leaves these out. Other methods that train on take optimiser and learning rate
    of the first training (``recipe``), where it is known.
    """
    own = {entry.name: entry.default for entry in dataclasses.fields(kind)}
    wanted: dict[str, Any] = {}
    small, rem = n_train < _SMALL, "score_floor" in own
    if small and isinstance(own.get("batch_size"), int):
        wanted["batch_size"] = min(own["batch_size"], 2 ** max(3, round(math.log2(max(1, n_train / _PASS)))))
    if small and rem:
        wanted |= {"lr": 0.01, "open_share": 0.3}
    wanted |= purpose_settings(kind, purpose)
    if purpose == "heal" and rem:
        wanted |= {"score_floor": 0.0, "erase_mean": True}
    # Where the default is to follow the first training (None), the method does so by itself.
    if recipe is not None and not rem and isinstance(own.get("optimiser"), str):
        wanted |= {"optimiser": recipe.optimiser.name, "lr": recipe.optimiser.lr}
    idle = kind.without_effect({})
    return {name: value for name, value in wanted.items() if value != own[name] and name not in idle}
