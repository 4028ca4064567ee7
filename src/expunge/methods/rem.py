"""Redirection for erasing memory, and its ablations."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from expunge.capacity.branches import add_capacity
from expunge.capacity.route import Router
from expunge.data.examples import Batch, Examples
from expunge.errors import InvalidInput
from expunge.methods.base import Needs, Reference, Request, chance_threshold, positive
from expunge.methods.gradient import GradientMethod
from expunge.methods.removal import CachedLoss, RaiseLoss, ReferenceLoss, remove
from expunge.objectives.npo import npo
from expunge.seeding import derive_seed
from expunge.training.batchnorm import momentum, recalibrate
from expunge.training.loop import Loss, accuracy, training_mode
from expunge.training.numerics import Numerics
from expunge.training.recipe import Recipe

_OFFICIAL_SHARED, _OFFICIAL_REFERENCE = 0, 42
"""Mask ids of the published code: of the live network and of the reference (trap T15)."""


@dataclass(frozen=True, kw_only=True)
class REM(GradientMethod):
    """Redirect corrupted data into dedicated neurons that are added for the purpose and then discarded.

    With z = ce - ce_ref (cross-entropy of the stored label, minus that of the model at the start):

    1. Add capacity theta_2 to the network theta_1.
    2. Flush: on D_f, base path f_D (theta_1 alone), minimise the mean of -(2 / beta) log sigmoid(beta z)
       until at most ``threshold`` of D_f keeps its stored label.
    3. Repair and redirect, one pass over D_tr: minimise the mean over the batch of
       (2 / beta) log sigmoid(beta z_S) + 1[i in D_f] * (-(2 / beta) log sigmoid(beta z_D)),
       z_S on the routed path f_S (theta_1 and the units of theta_2 that are open for the example: one
       shared set for all of D_f, a set of its own for everyone else), z_D on the base path.
       Repeat from 2, ``rounds`` times.
    4. Discard theta_2; return the round with the highest
       (accuracy on D_r) * (1 - max(``score_floor``, accuracy on D_f)), stored labels.

    Symbols: beta -> ``beta``, p_mem -> ``open_share``, theta_2 / theta_1 -> ``spare``.

    Networks of this package are widened unit by unit; any other gets masked parallel branches.

    Args:
        lr: learning rate.
        batch_size: examples a step.
        optimiser: "sgd", "adam" or "adamw".
        momentum: of "sgd".
        weight_decay: L2 on every parameter.
        augment: train on augmented inputs.
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
            that are far worse than the reference (trap T16).
        own_masks: if false, every example shares the one mask of D_f.
        score_examples: retained examples on which a round is scored.
        score_floor: accuracy on D_f below which a round is not rewarded for less of it; by default
            ``threshold``, the paper's. Where every stored label of D_f is wrong, 0 is right, and a lower one
            tells apart rounds that differ by noise otherwise.
        compat: "official" for the behaviour of the published code, see below.

    Raises:
        InvalidInput: a setting outside its range; a network with no layer to attach capacity to.

    Source: Schoepf, Mozer, Mitchell, Brintrup, Kaissis, Kairouz, Triantafillou, arXiv 2505.17730, section 4.

    Departures (those that ``compat="official"`` undoes are marked *): the reference is the start model's base path,
    cached without augmentation (* published: masked path, fresh random units included); the erasure term is
    computed on the discovered members of the batch only (* published: on all, then multiplied by zero);
    it and the flush normalise by running statistics, and those are estimated anew for the base path after
    each round (* published: both paths update them in turn, so they belong to neither); masks differ
    between layers (*); the start model is a candidate of step 4 (* published: the last model in its place).
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
    open_share: float = 0.2
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

    def typical_epochs(self, recipe: Recipe | None) -> float:
        """Rounds on the widened network; each computes (1 + spare)^2 times what the base path does."""
        return self.rounds * ((1 + self.spare) ** 2 if self.redirect else 1.0)

    def unlearn(self, model: nn.Module, request: Request) -> nn.Module:
        """Run the rounds and return the base path of the best one."""
        return _Run(self, model, request, self.discovered(request)).run()

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


@dataclass(frozen=True)
class RepairAndRedirect:
    """Objective of step 3.

    Args:
        method: settings.
        discovered: bool, one per row of the source.
        router: decides the open units.
        reference: ce_ref of the repair term.
        removal: the erasure term.
        forget: the forget set to draw from, for ``erase_mean``.
        numerics: where to place what is drawn.
        draw: generator of the draws.
    """

    method: REM
    discovered: Tensor
    router: Router
    reference: ReferenceLoss
    removal: RaiseLoss
    forget: Examples | None = None
    numerics: Numerics = field(default_factory=Numerics)
    draw: torch.Generator | None = None

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        """Return the mean over the batch and the number of gradients of both terms."""
        found = self.discovered[batch.index]
        repair = self._repair(model, batch, found)
        if not self.method.erase:
            return Loss(repair, len(batch))
        erasure = self._erasure(model, batch, found)
        return Loss(repair + erasure.value, len(batch) + erasure.gradients)

    def _erasure(self, model: nn.Module, batch: Batch, found: Tensor) -> Loss:
        if self.method.compat == "official":
            # On the whole batch, for the sake of its batch statistics, then multiplied by zero.
            return Loss((self.removal.terms(model, batch) * found).mean(), len(batch))
        if self.method.erase_mean:
            assert self.forget is not None
            assert self.draw is not None
            drawn = self.forget.sample(max(1, len(batch) // 4), self.draw, augment=self.method.augment)
            members = Batch(self.numerics.place_inputs(drawn.x), drawn.y, drawn.index)
            return self.removal(model, members)
        members = batch.take(found)
        if len(members) == 0:
            return Loss(torch.zeros((), device=batch.y.device), 0)
        return Loss(self.removal.terms(model, members).sum() / len(batch), len(members))

    def _repair(self, model: nn.Module, batch: Batch, found: Tensor) -> Tensor:
        if not self.method.redirect:
            # D_f has no part in the repair: on the base path it would be learned again.
            return (self._repair_terms(model(batch.x), batch) * ~found).mean()
        route = self.router(batch.index, found)
        if self.method.compat == "official":
            logits = model(batch.x, route)
        else:
            # The running statistics belong to the base path, the one that is deployed.
            with momentum(model, 0.0):
                logits = model(batch.x, route)
        return self._repair_terms(logits, batch).mean()

    def _repair_terms(self, logits: Tensor, batch: Batch) -> Tensor:
        loss = F.cross_entropy(logits.float(), batch.y, reduction="none")
        if self.method.repair == "cross_entropy":
            return loss
        return -npo(loss - self.reference(batch), self.method.beta)


@dataclass(frozen=True)
class _MaskedReference:
    """The published reference: the widened start model on the routed path, on the augmented batch."""

    model: nn.Module
    router: Router
    discovered: Tensor

    def __call__(self, batch: Batch) -> Tensor:
        route = self.router(batch.index, self.discovered[batch.index])
        with torch.no_grad(), training_mode(self.model, False):
            logits = self.model(batch.x, route).float()
        return F.cross_entropy(logits, batch.y, reduction="none")


class _Run:
    """One call of REM: the state that the rounds share."""

    def __init__(self, method: REM, model: nn.Module, request: Request, discovered: Tensor) -> None:
        self.method, self.request = method, request
        self.official = method.compat == "official"
        self.train, self.forget, self.retain = request.train, request.forget, request.retain
        self.rows = torch.zeros(len(self.train.source), dtype=torch.bool, device=self.train.device)
        self.rows[self.train.index[discovered]] = True
        self.order = request.generator("order")
        chosen = torch.randperm(len(self.retain), generator=request.generator("score"))
        self.scored: Examples = self.retain.select(chosen[: method.score_examples])
        chance = chance_threshold(request.n_classes)
        self.threshold = chance if method.threshold is None else method.threshold
        self.floor = self.threshold if method.score_floor is None else method.score_floor
        self.network: Any = model
        if method.redirect:
            self.network = add_capacity(model, method.spare, request.generator("capacity"))
            request.meter.parameters["during"] = sum(p.numel() for p in self.network.parameters())
            request.numerics.place(self.network)
        # A network that came with spare units keeps them: only what was added is discarded.
        self.added = self.network is not model
        router = Router(
            method.open_share,
            derive_seed(request.seed, "masks"),
            own_masks=method.own_masks,
            site_masks=not self.official,
        )
        reference: ReferenceLoss
        if self.official and method.redirect:
            router = replace(router, shared=_OFFICIAL_SHARED)
            frozen = copy.deepcopy(self.network).requires_grad_(False)
            reference = _MaskedReference(frozen, replace(router, shared=_OFFICIAL_REFERENCE), self.rows)
        else:
            reference = CachedLoss.of(self.network, self.train, request)
        self.removal = RaiseLoss(method.removal, reference, method.beta, batch_statistics=self.official)
        self.objective = RepairAndRedirect(
            method, self.rows, router, reference, self.removal,
            self.train.select(discovered), request.numerics, request.generator("erasure"),
        )  # fmt: skip
        self.optimizer = method.optimiser_over(self.network)

    def run(self) -> nn.Module:
        method, request = self.method, self.request
        best_score = self._score()
        # The published code holds the live network itself: unless beaten, it is the last model.
        best = None if self.official else self._snapshot()
        for number in range(method.rounds):
            passes = self._flush() if method.flush else 0
            loss = self._redirect(number)
            if not self.official:
                recalibrate(self.network, self.retain, request.numerics, max_batches=10, generator=self.order)
            score = self._score(round=number + 1, flush_passes=passes, loss=loss)
            if score > best_score:
                best_score, best = score, self._snapshot()
        if best is not None:
            self.network.load_state_dict(best)
        result: nn.Module = self.network.narrow() if self.added else self.network
        return result

    def _flush(self) -> int:
        return remove(
            self.method, self.network, self.forget, self.removal, self.request,
            optimizer=self.optimizer, order=self.order,
            threshold=self.threshold, max_passes=self.method.flush_passes,
        )  # fmt: skip

    def _redirect(self, number: int) -> float:
        rounds, report = self.method.rounds, self.request.progress
        loss: float = self.method.fit(
            self.network, self.train, self.objective, self.request,
            epochs=1, optimizer=self.optimizer, order=self.order,
            progress=lambda share: report((number + share) / rounds),
        )  # fmt: skip
        return loss

    def _score(self, **row: float) -> float:
        numerics = self.request.numerics
        kept = accuracy(self.network, self.scored, numerics)
        remaining = accuracy(self.network, self.forget, numerics)
        score = kept * (1 - max(self.floor, remaining))
        self.request.meter.write(**row, retain_accuracy=kept, forget_accuracy=remaining, score=score)
        return score

    def _snapshot(self) -> dict[str, Tensor]:
        return {name: tensor.clone() for name, tensor in self.network.state_dict().items()}
