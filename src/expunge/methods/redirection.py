"""What REM does: its rounds of flushing and redirecting, and the loss they minimise."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from expunge.capacity.branches import add_capacity
from expunge.capacity.route import Router
from expunge.data.examples import Batch, Examples
from expunge.methods.base import Request, chance_threshold
from expunge.methods.removal import CachedLoss, RaiseLoss, ReferenceLoss, npo, remove
from expunge.seeding import derive_seed
from expunge.training.batchnorm import momentum, recalibrate
from expunge.training.loop import Loss, accuracy, training_mode
from expunge.training.numerics import Numerics

if TYPE_CHECKING:
    from expunge.methods.rem import REM

_OFFICIAL_SHARED, _OFFICIAL_REFERENCE = 0, 42
"""Mask ids of the published code: of the live network and of the reference, whose routes so differ."""


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
        if not self.method.erase:
            return Loss(self._repair(model, batch, found), len(batch))
        if self.method.compat == "official":
            # Both passes move the running statistics, so that the later one weighs more in them.
            erasure = self._erasure(model, batch, found)
            repair = self._repair(model, batch, found)
        else:
            repair = self._repair(model, batch, found)
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


class Run:
    """One call of REM: the state that the rounds share."""

    def __init__(self, method: REM, model: nn.Module, request: Request, discovered: Tensor) -> None:
        self.method, self.request = method, request
        self.official = method.compat == "official"
        self.train, self.forget, self.retain = request.train, request.forget, request.retain
        self.rows = torch.zeros(len(self.train.source), dtype=torch.bool, device=self.train.device)
        self.rows[self.train.index[discovered]] = True
        self.order = request.generator("order")
        self.scored: Examples = self.retain
        self.augmentation: torch.Generator | None = None
        if not self.official:
            chosen = torch.randperm(len(self.retain), generator=request.generator("score"))
            self.scored = self.retain.select(chosen[: method.score_examples])
        elif method.augment:
            self.augmentation = request.generator("scoring")
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
        """Make the rounds and return the base path of the best one."""
        method, request = self.method, self.request
        best_score = self._score()
        # The published code holds the live network itself: unless beaten, it is the last model.
        best = None if self.official else self._snapshot()
        for number in range(method.rounds):
            passes = self._flush() if method.flush else 0
            loss = self._redirect(number)
            if not self.official:
                recalibrate(
                    self.network, self.retain, request.numerics, max_batches=10, generator=self.order,
                    augment=method.augment,
                )  # fmt: skip
            score = self._score(round=number + 1, flush_passes=passes, loss=loss)
            if score > best_score:
                best_score, best = score, self._snapshot()
        if best is not None:
            self.network.load_state_dict(best)
        result: nn.Module = self.network.narrow() if self.added else self.network
        return result

    def _flush(self) -> int:
        return remove(
            self.method, self.network, self.forget, replace(self.removal, batch_statistics=True), self.request,
            optimizer=self.optimizer, order=self.order,
            threshold=self.threshold, max_passes=self.method.flush_passes, augmentation=self.augmentation,
        )  # fmt: skip

    def _redirect(self, number: int) -> float:
        rounds = self.method.rounds
        loss: float = self.method.fit(
            self.network, self.train, self.objective, self.request,
            epochs=1, optimizer=self.optimizer, order=self.order,
            progress=self.request.stage(number / rounds, (number + 1) / rounds),
        )  # fmt: skip
        return loss

    def _score(self, **row: float) -> float:
        numerics = self.request.numerics
        kept, remaining = (
            accuracy(self.network, part, numerics, augmentation=self.augmentation)
            for part in (self.scored, self.forget)
        )
        score = kept * (1 - max(self.floor, remaining))
        self.request.meter.write(**row, retain_accuracy=kept, forget_accuracy=remaining, score=score)
        return score

    def _snapshot(self) -> dict[str, Tensor]:
        return {name: tensor.clone() for name, tensor in self.network.state_dict().items()}
