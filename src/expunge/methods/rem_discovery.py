"""REM on any trained network, which also finds corruption that nobody named."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from expunge.capacity.branches import Branched, check_branches
from expunge.capacity.route import Router
from expunge.data.examples import Batch, Examples
from expunge.errors import InvalidInput
from expunge.methods.base import Found, Needs, Reference, Request, chance_threshold, positive, searched
from expunge.methods.gradient import GradientMethod
from expunge.methods.kinship import kin, two_means
from expunge.methods.removal import RaiseLoss
from expunge.seeding import derive_seed
from expunge.training.batchnorm import momentum, recalibrate
from expunge.training.devices import Devices
from expunge.training.initialisation import shrink_and_perturb
from expunge.training.loop import Loss, predict
from expunge.training.numerics import Numerics
from expunge.training.recipe import Recipe

_SMALLEST_BATCH = 8
"""That a batch is halved to: batch normalisation makes little of fewer."""
_RECOVERED = 0.7
"""Share of the stored labels it gave before that the network must give again."""


@dataclass(frozen=True, kw_only=True)
class REMDiscovery(GradientMethod):
    """Redirect corrupted data into branches beside the layers, and find the corruption that nobody named.

    theta_1 is the network, theta_2 the branches (any network; each example has its own open units). S is what is
    taken for bad: D_f at first.

    1. Kin: what looks to some layer as D_f does, among the examples of its labels (:func:`kin`), is left out of what
       follows until it is judged in step 3.
    2. Loosen: theta_1 <- keep theta_1 + (1 - keep) theta_0, theta_0 a fresh initialisation.
    3. ``rounds`` passes over D_tr: minimise the mean of 1[i not in S] ce(f_(theta_1, theta_2)(x_i), y_i)
       + erase * mean over a draw from S of -2 log sigmoid(ce(f_theta_1(x), y) - margin).
       After each pass, with p the softmax of f_theta_1: belief_i <- mean of belief_i and
       max_(j != y) p_j - p_y. From round ``first_naming`` to the last but one, the kin of a label join S if the median
       of their beliefs is above ``belief``, and are trained on from then on if it is not; who else has a belief above
       it joins S, provided that the beliefs fall into two parts.
    4. Discard theta_2; return the last round, or the one with the highest accuracy on what is not in S times
       (1 - max(twice chance, accuracy on D_f)) if that is above the last one's by more than ``tolerance``.
    5. If the result is right on less than 0.7 of what theta_1 was right on outside D_f, as shares of the stored labels,
       it has not come back from step 2: again from the start with half as much lost, and half of that once more; the
       best counts.

    Args:
        lr: learning rate; constant for the first two fifths of the rounds, then falling by equal steps, to
            1 / (0.6 ``rounds``) of it in the last.
        batch_size: examples a step.
        optimiser: "sgd", "adam" or "adamw".
        momentum: of "sgd".
        weight_decay: L2 on every parameter.
        augment: train on augmented inputs.
        width: size of a branch for that of its layer: units beside a convolution, parameters beside a linear layer.
        layers: names or patterns ("encoder.*") of the layers to put branches beside; by default every
            ungrouped convolution and linear layer but the head.
        open_share: share of the branch units open for one mask, in (0, 1].
        keep: share of theta_1 that is kept in step 2, at first; 1 to leave it as it is.
        rounds: passes over the training set.
        least_steps: where the rounds have fewer steps than these, the batch is halved, to 8 at the least, and then
            there are more rounds: it takes that many to come back from step 2.
        erase: weight of the erasure term.
        margin: cross-entropy in nats at which the erasure has half its force.
        redirect_found: redirect S too, through its one shared set of units, as REM does; off, S is only erased.
            A rule such as a trigger pulls the network back to it through the shared units.
        discover: find others; if false, S stays D_f.
        look_for_kin: make step 1.
        first_naming: round after which others are first named; before the last one.
        ready: nobody is named while less than this share of what is not in S is given its stored label: a network
            that has not recovered from step 2 disagrees with good examples too.
        belief: who is believed above this is named, in [0, 1]; at 1 nobody.
        contrast: pooled standard deviations between the two parts of the beliefs below which only kin are named: a
            network that is unsure of much disagrees with what is hard.
        cap: at most this share of the unnamed examples is named, and of each label's; the most suspicious.
        separation: of step 1: pooled standard deviations between examples like D_f and the others of their label; a
            fifth more for a label that D_f does not name more often than chance would, a tenth less where D_f leaves
            no doubt.
        kin_cap: of step 1: at most this share of a label's unnamed examples.
        tolerance: of step 4.

    Raises:
        InvalidInput: a setting outside its range; a network with no layer to put a branch beside.

    Source: this project, after Schoepf et al., arXiv 2505.17730 (redirection; masks by example), and Ash and
    Adams, NeurIPS 2020 (shrink and perturb).
    """

    name = "rem_discovery"
    needs = Needs.FORGET | Needs.RETAIN
    touches = "all parameters and added branches"
    reference = Reference(
        "Redirection for Erasing Memory (REM), attached to any network and with self-discovery",
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
    redirect_found: bool = False
    discover: bool = True
    look_for_kin: bool = True
    first_naming: int = 3
    ready: float = 0.7
    belief: float = searched(0.4, 0.1, 0.8)
    contrast: float = 4.5
    cap: float = 0.5
    separation: float = 3.4
    kin_cap: float = 0.5
    tolerance: float = 0.02

    def __post_init__(self) -> None:
        super().__post_init__()
        given: Any = self.layers  # a string is a sequence of strings too, but one pattern is meant
        layers = (given,) if isinstance(given, str) else tuple(given)
        object.__setattr__(self, "layers", layers)
        positive(
            width=self.width, rounds=self.rounds, first_naming=self.first_naming, separation=self.separation,
            contrast=self.contrast,
        )  # fmt: skip
        Router(self.open_share)
        for name in ("keep", "belief", "cap", "kin_cap", "tolerance", "ready"):
            if not 0 <= getattr(self, name) <= 1:
                raise InvalidInput(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        if self.discover and self.first_naming >= self.rounds:
            raise InvalidInput(
                f"first_naming {self.first_naming} with rounds {self.rounds} names nobody, since the last round never "
                "does; raise rounds, lower first_naming, or set discover=false"
            )
        if self.least_steps < 0:
            raise InvalidInput(f"least_steps is a number of steps, at least 0, got {self.least_steps}")
        if not 0 <= self.erase < math.inf:
            raise InvalidInput(f"erase is a weight of at least 0, got {self.erase}")
        if not math.isfinite(self.margin):
            raise InvalidInput(f"margin is a cross-entropy in nats, got {self.margin}")

    def typical_epochs(self, recipe: Recipe | None) -> float:
        """The rounds with their branches and erasure, a forward pass after each, and two for the kin."""
        return self.rounds * (1 + 2 * self.width + 0.25 + 0.4) + 0.7

    def fitted_to(self, n_train: int) -> Self:
        """Return the method with the batch size and rounds that give ``n_train`` examples their ``least_steps``."""
        size, rounds = self.batch_size, self.rounds
        while size >= 2 * _SMALLEST_BATCH and rounds * math.ceil(n_train / size) < self.least_steps:
            size //= 2
        rounds = max(rounds, math.ceil(self.least_steps / math.ceil(n_train / size)))
        return replace(self, batch_size=size, rounds=rounds)

    def check_devices(self, devices: Devices) -> None:
        """Refuse the erasure term, whose draw from S every process would repeat for its part of a batch."""
        if self.erase:
            raise InvalidInput(
                f"the erasure term of {self.name!r} draws for a whole batch, which several devices do not share; "
                "use 'rem', set erase=0, or run on one device"
            )

    def check(self, model: nn.Module, request: Request) -> None:
        """Refuse a network that branches cannot stand beside."""
        check_branches(model, next(request.train.batches(3)).x, self.layers)

    def unlearn(self, model: nn.Module, request: Request) -> nn.Module:
        """Name, loosen, redirect; return the network without its branches."""
        method, retained = self.fitted_to(len(request.train)), ~request.forget_mask
        best: _Search | None = None
        for keep in (method.keep, (1 + method.keep) / 2, (3 + method.keep) / 4):
            search = _Search(replace(method, keep=keep), copy.deepcopy(model), request)
            search.run()
            if best is None or search.kept > best.kept:
                best = search
            _, right = _disagreement(model, request.train, request.numerics)
            if keep == 1 or search.kept >= _RECOVERED * float(right[retained].double().mean()):
                break
        assert best is not None
        best.report()
        return best.network.narrow()


class _Search:
    """One call: the network with its branches, S, and what is believed of every example."""

    def __init__(self, method: REMDiscovery, model: nn.Module, request: Request) -> None:
        self.method, self.request, self.model = method, request, model
        self.train, self.known = request.train, request.forget_mask
        self.taken = self.known.clone()
        self.held = torch.zeros_like(self.known)
        self.belief: Tensor | None = None
        self.kept = 0.0
        self.order = request.generator("order")
        self.draw = request.generator("erasure")
        # Attached before anything else is done: a network without a place for branches is refused at once.
        self.network = Branched(model, method.width, request.generator("capacity"), method.layers)
        request.meter.parameters["during"] = sum(p.numel() for p in self.network.parameters())
        request.numerics.place(self.network)
        self.router = Router(method.open_share, derive_seed(request.seed, "masks"))
        self.removal = RaiseLoss("npo", partial(_constant, value=method.margin))
        self.rows = torch.zeros(len(self.train.source), dtype=torch.bool, device=self.train.device)
        self.left = self.rows.clone()

    @property
    def _trusted(self) -> Tensor:
        return ~(self.taken | self.held)

    def run(self) -> None:
        """Carry out the rounds; the network then holds what is returned of them."""
        method, request = self.method, self.request
        if method.discover and method.look_for_kin:
            self.held = kin(
                self.model, self.train, self.known, request.numerics,
                separation=method.separation, share=method.kin_cap,
            )  # fmt: skip
        shrink_and_perturb(self.model, method.keep, request.generator("loosen"))
        optimizer = method.optimiser_over(self.network)
        best: tuple[float, float, dict[str, Tensor] | None] = (-1.0, 0.0, None)
        last = -1.0
        for number in range(method.rounds):
            for group in optimizer.param_groups:
                group["lr"] = method.lr * min(1.0, (method.rounds - number) / (0.6 * method.rounds))
            loss = self._redirect(number, optimizer)
            kept = self.train.select(self._trusted)
            recalibrate(self.network, kept, request.numerics, max_batches=10, generator=self.order)
            last = self._judge(number, loss)
            if last > best[0]:
                state = self.model.state_dict()
                best = (last, self.kept, {name: tensor.clone() for name, tensor in state.items()})
        if best[2] is not None and best[0] > last + method.tolerance:
            self.kept = best[1]
            self.model.load_state_dict(best[2])

    def _redirect(self, number: int, optimizer: torch.optim.Optimizer) -> float:
        method, rounds = self.method, self.method.rounds
        self.rows[self.train.index] = self.taken
        # What was found is only erased, and what is held is left alone until it is judged.
        self.left[self.train.index] = self.held if method.redirect_found else self.held | self.taken
        bad = self.train.select(self.taken)

        def objective(model: nn.Module, batch: Batch) -> Loss:
            route = self.router(batch.index, self.rows[batch.index])
            # Running statistics belong to the network without branches, the one that is returned.
            with momentum(model, 0.0):
                logits = model(batch.x, route)
            each = F.cross_entropy(logits.float(), batch.y, reduction="none")
            value = (each * ~self.left[batch.index]).mean()
            if not method.erase:
                return Loss(value, len(batch))
            drawn = bad.sample(max(1, len(batch) // 4), self.draw, augment=method.augment)
            members = Batch(self.request.numerics.place_inputs(drawn.x), drawn.y, drawn.index)
            erasure = self.removal(model, members)
            return Loss(value + method.erase * erasure.value, len(batch) + erasure.gradients)

        return self.method.fit(
            self.network, self.train, objective, self.request, epochs=1, optimizer=optimizer,
            order=self.order, progress=self.request.stage(number / rounds, (number + 1) / rounds),
        )  # fmt: skip

    def _judge(self, number: int, loss: float) -> float:
        """Update the beliefs, name who is above the threshold, write a row; return the round's score."""
        method, numerics = self.method, self.request.numerics
        now, right = _disagreement(self.network, self.train, numerics)
        self.belief = now if self.belief is None else (self.belief + now) / 2
        kept = self.kept = float(right[self._trusted].double().mean())
        remaining = float(right[self.known].double().mean())
        score = kept * (1 - max(chance_threshold(self.request.n_classes), remaining))
        turn = method.first_naming <= number + 1 < method.rounds
        naming = method.discover and turn and kept >= method.ready
        named = self._name() if naming else 0
        self.request.meter.write(
            round=number + 1, keep=method.keep, loss=loss, retain_accuracy=kept, forget_accuracy=remaining, named=named,
            taken=int(self.taken.sum()), score=score,
        )  # fmt: skip
        return score

    def _name(self) -> int:
        before = int(self.taken.sum())
        self._judge_kin()
        self._name_the_disbelieved()
        return int(self.taken.sum()) - before

    def _judge_kin(self) -> None:
        """Name the kin of a label if the network, which has not seen them, mostly says another; else let them go."""
        assert self.belief is not None
        labels = self.train.labels
        for label in torch.unique(labels[self.held]).tolist():
            mine = self.held & (labels == label)
            if float(self.belief[mine].median()) > self.method.belief:
                self.taken |= mine
        self.held[:] = False

    def _name_the_disbelieved(self) -> None:
        assert self.belief is not None
        left = self.belief[~self.taken]
        # Where the network is unsure of much, what it disagrees with is what is hard, not what is wrong.
        if len(left) < 4 or two_means(left).separation < self.method.contrast:
            return
        free, labels = ~self.known, self.train.labels
        wanted = free & ~self.taken & (self.belief > self.method.belief)
        for label in torch.unique(labels[wanted]).tolist():
            mine = labels == label
            room = int(self.method.cap * int((mine & free).sum())) - int((self.taken & mine & free).sum())
            rows = (wanted & mine).nonzero().flatten()
            surplus = rows[self.belief[rows].argsort(descending=True)[max(0, room) :]]
            wanted[surplus] = False
        self.taken |= wanted

    def report(self) -> None:
        """Hand over who was found."""
        assert self.belief is not None
        if not self.method.discover:
            return
        found = (self.taken & ~self.known).nonzero().flatten()
        found = found[self.belief[found].argsort(descending=True)]
        # p_y / (p_y + max p_j) where no other class has a share of the probability, more than it elsewhere
        wrong = float(((1 - self.belief[found]) / 2).mean()) if len(found) else 0.0
        self.request.found = Found(found, self.belief.clone(), min(max(wrong, 0.0), 1.0))


def _disagreement(model: nn.Module, examples: Examples, numerics: Numerics) -> tuple[Tensor, Tensor]:
    """Return max_(j != y) p_j - p_y, float32 (N,), and whether the stored label y is predicted."""
    labels = examples.labels
    p = predict(model, examples, numerics).softmax(1)
    stored = p.gather(1, labels[:, None])
    other = p.scatter(1, labels[:, None], 0).amax(1, keepdim=True)
    difference = (other - stored).squeeze(1)
    return difference, difference < 0


def _constant(batch: Batch, value: float) -> Tensor:
    return torch.full((len(batch),), value, device=batch.y.device)


@dataclass(frozen=True, kw_only=True)
class AttachedREM(REMDiscovery):
    """REM attached to any network, without self-discovery: the forget set stays what was named."""

    name = "rem_attached"
    discover: bool = False
