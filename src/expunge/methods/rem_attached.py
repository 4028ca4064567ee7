"""REM on any trained network, by branches beside its layers."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from expunge.capacity.branches import Branched
from expunge.capacity.route import Router
from expunge.data.examples import Batch
from expunge.errors import InvalidInput
from expunge.methods.base import Needs, Reference, Request, chance_threshold, positive, searched
from expunge.methods.gradient import GradientMethod
from expunge.methods.removal import RaiseLoss
from expunge.seeding import derive_seed
from expunge.training.batchnorm import momentum, recalibrate
from expunge.training.initialisation import shrink_and_perturb
from expunge.training.loop import Loss, Objective, accuracy
from expunge.training.numerics import Devices
from expunge.training.recipe import Recipe

_SMALLEST_BATCH = 8
"""That a batch is halved to: batch normalisation makes little of fewer."""
_RECOVERED = 0.7
"""Share of the retained labels it gave before that the network must give again."""


@dataclass(frozen=True, kw_only=True)
class AttachedREM(GradientMethod):
    """Redirect corrupted data into branches beside the layers of any network, and discard the branches.

    theta_1 is the network, theta_2 the branches; each example has its own open units.

    1. theta_1 <- keep theta_1 + (1 - keep) theta_0, theta_0 a fresh initialisation.
    2. ``rounds`` passes over D_tr: minimise the mean of 1[i not in D_f] ce(f_(theta_1, theta_2)(x_i), y_i)
       + erase * mean over a draw from D_f of -2 log sigmoid(ce(f_theta_1(x), y) - margin).
    3. Discard theta_2; return the last round, or the one with the highest accuracy on D_r times
       (1 - max(twice chance, accuracy on D_f)) if that is above the last one's by more than ``tolerance``.
    4. If the result is right on less than 0.7 of what theta_1 was right on in D_r, it has not come back from step 1:
       again from the start with half as much lost, and half of that once more; the best counts.

    Accuracies are on the given labels.

    Args:
        lr: learning rate; constant for two fifths of the rounds, then falling to 1 / (0.6 ``rounds``) of it.
        width: size of a branch for that of its layer: units beside a convolution, parameters beside a linear layer.
        layers: names or patterns ("encoder.*") of the layers to put branches beside; by default all that can have one.
        open_share: share of the branch units open for one mask, in (0, 1].
        keep: share of theta_1 that is kept in step 1, at first; 1 to leave it as it is.
        rounds: passes over the training set.
        least_steps: where the rounds have fewer steps, the batch is halved, to 8 at the least, and rounds are added.
        erase: weight of the erasure term.
        margin: cross-entropy in nats at which the erasure has half its force.
        tolerance: of step 3.

    Raises:
        InvalidInput: a setting outside its range; a network with no layer to put a branch beside.

    Source: Schoepf et al., arXiv 2505.17730 (redirection; masks by example); Ash and Adams, NeurIPS 2020 (shrink and
    perturb).

    Departures from REM: branches in place of wider layers; D_f is erased and not redirected, because a rule such as a
    trigger pulls the network back to it through the units that D_f shares; step 1 in place of the flush.
    """

    name = "rem_attached"
    needs = Needs.FORGET | Needs.RETAIN
    touches = "all parameters and added branches"
    reference = Reference(
        "Redirection for Erasing Memory (REM), attached to any network",
        "after Schoepf, Mozer, Mitchell, Brintrup, Kaissis, Kairouz, Triantafillou",
        2026,
        "this project; REM: arXiv 2505.17730",
    )

    lr: float = searched(0.05, 0.005, 0.2, log=True)
    batch_size: int = 64
    width: float = 0.2
    layers: tuple[str, ...] = ()
    open_share: float = searched(0.3, 0.1, 0.6)
    keep: float = searched(0.4, 0.2, 0.9)
    rounds: int = 6
    least_steps: int = 130
    erase: float = searched(0.3, 0.1, 1.0, log=True)
    margin: float = 1.0
    tolerance: float = 0.02

    def __post_init__(self) -> None:
        super().__post_init__()
        given: Any = self.layers  # a string is a sequence of strings too, but one pattern is meant
        object.__setattr__(self, "layers", (given,) if isinstance(given, str) else tuple(given))
        positive(width=self.width, rounds=self.rounds)
        Router(self.open_share)
        for name in ("keep", "tolerance"):
            if not 0 <= getattr(self, name) <= 1:
                raise InvalidInput(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        for name in ("least_steps", "erase"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InvalidInput(f"{name} must be finite and at least 0, got {getattr(self, name)}")
        if not math.isfinite(self.margin):
            raise InvalidInput(f"margin is a cross-entropy in nats, got {self.margin}")

    def typical_epochs(self, recipe: Recipe | None) -> float:
        """The rounds with their branches and erasure, and a forward pass after each."""
        return self.rounds * (1 + 2 * self.width + 0.25 + 0.4)

    def fitted_to(self, n_train: int) -> AttachedREM:
        """Return the method with the batch size and rounds that give ``n_train`` examples their ``least_steps``."""
        size, rounds = self.batch_size, self.rounds
        while size >= 2 * _SMALLEST_BATCH and rounds * math.ceil(n_train / size) < self.least_steps:
            size //= 2
        rounds = max(rounds, math.ceil(self.least_steps / math.ceil(n_train / size)))
        return replace(self, batch_size=size, rounds=rounds)

    def check_devices(self, devices: Devices) -> None:
        """Refuse the erasure term, whose draw from D_f every process would repeat for its part of a batch."""
        if self.erase:
            raise InvalidInput(
                f"the erasure term of {self.name!r} draws for a whole batch, which several devices do not share; "
                "use 'rem', set erase=0, or run on one device"
            )

    def unlearn(self, model: nn.Module, request: Request) -> nn.Module:
        """Shrink and redirect, again with less shrinking if the network does not come back; return it alone."""
        method = self.fitted_to(len(request.train))
        best: tuple[float, Branched] | None = None
        for keep in (method.keep, (1 + method.keep) / 2, (3 + method.keep) / 4):
            network = Branched(copy.deepcopy(model), self.width, request.generator("capacity"), self.layers)
            kept = replace(method, keep=keep)._redirect(network, request)
            if best is None or kept > best[0]:
                best = kept, network
            if keep == 1 or kept >= _RECOVERED * accuracy(model, request.retain, request.numerics):
                break
        assert best is not None
        return best[1].narrow()

    def _redirect(self, network: Branched, request: Request) -> float:
        """Make steps 1 to 3 in place; return the accuracy on D_r of the round that ``network`` then holds."""
        numerics, retain = request.numerics, request.retain
        request.meter.parameters["during"] = sum(p.numel() for p in network.parameters())
        numerics.place(network)
        model, order = network.model, request.generator("order")
        shrink_and_perturb(model, self.keep, request.generator("loosen"))
        objective, optimizer = self._objective(request), self.optimiser_over(network)
        best: tuple[float, float, dict[str, Tensor]] | None = None
        for number in range(self.rounds):
            for group in optimizer.param_groups:
                group["lr"] = self.lr * min(1.0, (self.rounds - number) / (0.6 * self.rounds))
            loss = self.fit(
                network, request.train, objective, request, epochs=1, optimizer=optimizer, order=order,
                progress=request.stage(number / self.rounds, (number + 1) / self.rounds),
            )  # fmt: skip
            recalibrate(network, retain, numerics, max_batches=10, generator=order, augment=self.augment)
            kept, remaining = (accuracy(model, part, numerics) for part in (retain, request.forget))
            score = kept * (1 - max(chance_threshold(request.n_classes), remaining))
            request.meter.write(
                round=number + 1, keep=self.keep, loss=loss, retain_accuracy=kept, forget_accuracy=remaining,
                score=score,
            )  # fmt: skip
            if best is None or score > best[0]:
                state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
                best = score, kept, state
        assert best is not None
        if best[0] > score + self.tolerance:
            kept = best[1]
            model.load_state_dict(best[2])
        return kept

    def _objective(self, request: Request) -> Objective:
        train, forget, draw = request.train, request.forget, request.generator("erasure")
        router = Router(self.open_share, derive_seed(request.seed, "masks"))
        removal = RaiseLoss(
            "npo", lambda batch: batch.y.new_full((len(batch),), self.margin, dtype=torch.float32)
        )
        listed = torch.zeros(len(train.source), dtype=torch.bool, device=train.device)
        listed[forget.index] = True

        def objective(model: nn.Module, batch: Batch) -> Loss:
            bad = listed[batch.index]
            # Running statistics belong to the network without branches, the one that is returned.
            with momentum(model, 0.0):
                logits = model(batch.x, router(batch.index, bad))
            value = (F.cross_entropy(logits.float(), batch.y, reduction="none") * ~bad).mean()
            if not self.erase:
                return Loss(value, len(batch))
            drawn = forget.sample(max(1, len(batch) // 4), draw, augment=self.augment)
            members = Batch(request.numerics.place_inputs(drawn.x), drawn.y, drawn.index)
            erasure = removal(model, members)
            return Loss(value + self.erase * erasure.value, len(batch) + erasure.gradients)

        return objective
