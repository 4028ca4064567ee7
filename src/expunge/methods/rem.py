"""Redirection for erasing memory, and its ablations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from expunge.capacity.branches import check_branches
from expunge.capacity.route import Router
from expunge.errors import InvalidInput
from expunge.methods.base import Needs, Reference, Request, positive, searched
from expunge.methods.gradient import GradientMethod
from expunge.methods.redirection import Run
from expunge.models.split import SplitNetwork
from expunge.training.numerics import Devices
from expunge.training.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class REM(GradientMethod):
    """Redirect corrupted data into dedicated neurons that are added for the purpose and then discarded.

    With z = ce - ce_ref (cross-entropy of the given label, minus that of the model at the start):

    1. Add capacity theta_2 to the network theta_1.
    2. Flush: on D_f, base path f_D (theta_1 alone), minimise the mean of -(2 / beta) log sigmoid(beta z)
       until at most ``threshold`` of D_f keeps its given label.
    3. Repair and redirect, one pass over D_tr: minimise the mean over the batch of
       (2 / beta) log sigmoid(beta z_S) + 1[i in D_f] * (-(2 / beta) log sigmoid(beta z_D)),
       z_S on the routed path f_S (theta_1 and the units of theta_2 that are open for the example: one
       shared set for all of D_f, a set of its own for everyone else), z_D on the base path.
       Repeat from 2, ``rounds`` times.
    4. Discard theta_2; return the round with the highest
       (accuracy on D_r) * (1 - max(``score_floor``, accuracy on D_f)), given labels.

    Symbols: beta -> ``beta``, p_mem -> ``open_share``, theta_2 / theta_1 -> ``spare``.

    Networks of this package are widened unit by unit; any other gets masked parallel branches.

    Args:
        spare: dedicated units for each unit of the network; 1 doubles its width.
        open_share: share of the dedicated units open for one mask, in (0, 1].
        beta: inverse temperature of both losses, in 1 / nat.
        rounds: times flush and redirect are repeated; one pass over the training set each.
        flush_passes: at most this many passes over D_f in one flush.
        threshold: accuracy on D_f at which it counts as removed; by default twice chance.
        removal: "npo" or "ascent", the loss of the flush and of the erasure term.
        flush: make step 2.
        erase: keep the erasure term of step 3, on the base path.
        erase_mean: take the erasure term as a mean over D_f, a sample of which is drawn at every step. Off, it
            is the sum over the discovered members of the batch, divided by the batch size, and a forget set
            of one in a hundred weighs a hundredth. The paper prints the former; its code does the latter, with
            a switch (off) that multiplies by N / |D_f|.
        redirect: if false, no capacity is added: repair D_r on the base path.
        repair: "npo" as above, or "cross_entropy" on the routed path. The former hardly repairs examples
            that are far worse than the reference: the force of NPO fades there.
        own_masks: if false, every example shares the one mask of D_f.
        score_examples: retained examples on which a round is scored (published: all, augmented *).
        score_floor: accuracy on D_f below which a round is not rewarded for less of it; by default
            ``threshold``, the paper's. Where every given label of D_f is wrong, 0 is right, and a lower one
            tells apart rounds that differ by noise otherwise.
        compat: "official" for the behaviour of the published code, see below.

    Raises:
        InvalidInput: a setting outside its range, or one that has no effect beside the others; a network with no layer
            to attach capacity to.

    Source: Schoepf, Mozer, Mitchell, Brintrup, Kaissis, Kairouz, Triantafillou, arXiv 2505.17730, section 4.

    Departures (those that ``compat="official"`` undoes are marked *): the reference is the start model's base path,
    cached without augmentation (* published: masked path, fresh random units included); the erasure term is
    computed on the discovered members of the batch only (* published: before the repair term and on all, then
    multiplied by zero) and normalised by running statistics (a batch of nothing but triggered images would normalise
    the trigger away); those are estimated anew for the base path after each round (* published: both paths update
    them in turn, so they belong to neither); a flush of one example is normalised by them too; accuracies, of the
    flush and of the score, are taken without augmentation (*); masks differ between layers (*); the start model is a
    candidate of step 4 (* published: the last model in its place). Without redirection the reference is cached either
    way, and the published oracle starts its scores from 0.
    """

    name = "rem"
    needs = Needs.FORGET | Needs.RETAIN
    touches = "all parameters and added neurons"
    reference = Reference(
        "Redirection for Erasing Memory (REM): Towards a universal unlearning method for corrupted data",
        "Schoepf, Mozer, Mitchell, Brintrup, Kaissis, Kairouz, Triantafillou",
        2025,
        "arXiv 2505.17730",
    )

    spare: float = 1.0
    open_share: float = searched(0.2, 0.1, 0.6)
    beta: float = 1.0
    rounds: int = 10
    flush_passes: int = 100
    threshold: float | None = None
    removal: str = "npo"
    flush: bool = True
    erase: bool = True
    erase_mean: bool = False
    redirect: bool = True
    repair: str = "npo"
    own_masks: bool = True
    score_examples: int = 5000
    score_floor: float | None = None
    compat: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(
            spare=self.spare, beta=self.beta, rounds=self.rounds, flush_passes=self.flush_passes,
            score_examples=self.score_examples,
        )  # fmt: skip
        Router(self.open_share)
        for name, value in (("threshold", self.threshold), ("score_floor", self.score_floor)):
            if value is not None and not 0 <= value < 1:
                raise InvalidInput(f"{name} is an accuracy in [0, 1), got {value}")
        self.refuse_without_effect()
        if self.compat == "official" and self.erase_mean:
            raise InvalidInput(
                "compat='official' takes the erasure term as the published code does; drop erase_mean"
            )
        for setting, allowed in (
            ("removal", ("npo", "ascent")),
            ("repair", ("npo", "cross_entropy")),
            ("compat", (None, "official")),
        ):
            if getattr(self, setting) not in allowed:
                raise InvalidInput(f"{setting} must be one of {allowed}, got {getattr(self, setting)!r}")

    @classmethod
    def without_effect(cls, settings: Mapping[str, Any]) -> dict[str, str]:
        """Settings of what a variant leaves out."""
        chosen = {**cls.defaults(), **settings}
        removes = chosen["flush"] or chosen["erase"]
        found: dict[str, str] = {}
        if not chosen["redirect"]:
            found |= dict.fromkeys(
                ("spare", "open_share", "own_masks"), "no capacity is added (redirect=False)"
            )
        if not chosen["erase"]:
            found["erase_mean"] = "there is no erasure term (erase=False)"
        if not chosen["flush"]:
            found["flush_passes"] = "nothing is flushed (flush=False)"
        if not removes:
            found["removal"] = "nothing is removed (flush=False, erase=False)"
        if chosen["repair"] != "npo" and not (removes and chosen["removal"] == "npo"):
            found["beta"] = "no loss is NPO"
        if chosen["compat"] == "official":
            found["score_examples"] = "the published code scores on all retained examples (compat='official')"
        return found

    def typical_epochs(self, recipe: Recipe | None) -> float:
        """Rounds on the widened network; each computes (1 + spare)^2 times what the base path does."""
        return self.rounds * ((1 + self.spare) ** 2 if self.redirect else 1.0)

    def unlearn(self, model: nn.Module, request: Request) -> nn.Module:
        """Run the rounds and return the base path of the best one."""
        return Run(self, model, request, self.discovered(request)).run()

    def check(self, model: nn.Module, request: Request) -> None:
        """Refuse a network that can neither be widened nor have branches."""
        if self.redirect and not isinstance(model, SplitNetwork):
            check_branches(model, next(request.train.batches(3)).x)

    def check_devices(self, devices: Devices) -> None:
        """Refuse ``erase_mean``, whose draw from D_f every process would repeat; with "fsdp" any erasure term."""
        if self.erase_mean:
            raise InvalidInput(
                "erase_mean draws from the forget set for a whole batch, which several devices do not share; drop "
                "erase_mean, or run on one device"
            )
        if self.erase and devices.sharded:
            # A part of a batch without a member of D_f has one forward pass less, and each gathers the network.
            raise InvalidInput(
                "the erasure term needs another pass on those devices alone that see forgotten examples, which "
                "does not go with strategy 'fsdp'; use 'ddp', or 'rem_ascent', which has none"
            )

    def discovered(self, request: Request) -> Tensor:
        """Positions in the training set whose route is shared and which are erased."""
        return request.forget_mask.nonzero().flatten()


@dataclass(frozen=True, kw_only=True)
class IdealREM(REM):
    """Oracle: REM told about all corrupted data when masking and erasing; it still flushes D_f alone."""

    name = "rem_ideal"
    needs = REM.needs | Needs.TRUTH

    def discovered(self, request: Request) -> Tensor:
        """Every corrupted position, found or not."""
        return request.truth.corrupted.to(request.train.device)


@dataclass(frozen=True, kw_only=True)
class REMWithoutRedirection(REM):
    """REM without added capacity: repair the retain set on the network itself, go on erasing D_f."""

    name = "rem_without_redirection"
    touches = "all parameters"
    redirect: bool = False


@dataclass(frozen=True, kw_only=True)
class REMWithoutRemoval(REM):
    """REM that only redirects: no flush and no erasure term."""

    name = "rem_without_removal"
    flush: bool = False
    erase: bool = False


@dataclass(frozen=True, kw_only=True)
class AscentREM(REM):
    """REM with plain ascent in place of NPO: flush by ascent, redirect by cross-entropy, no erasure term.

    Departures: REM's. An erasure term by ascent has no bound and ended in NaN where it was tried.
    """

    name = "rem_ascent"
    removal: str = "ascent"
    repair: str = "cross_entropy"
    erase: bool = False
