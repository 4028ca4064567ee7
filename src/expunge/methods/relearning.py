"""What relearning does: its passes, the loss of a step, and who is flagged between them."""

from __future__ import annotations

import copy
import math
from collections.abc import Collection
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from expunge.data.examples import Batch, Examples, batch_count
from expunge.errors import Diverged, InvalidInput
from expunge.methods.base import Found, Request
from expunge.methods.feature_neighbours import Neighbours, feature_neighbours
from expunge.methods.given_labels import wrong_label_probability
from expunge.training.batchnorm import batch_norms, recalibrate
from expunge.training.class_shares import bring_back_lost_classes
from expunge.training.continued import Continued
from expunge.training.frozen_prefix import FrozenPrefix
from expunge.training.initialisation import shrink_and_perturb
from expunge.training.loop import Loss, fit, predict
from expunge.training.team import current_team

if TYPE_CHECKING:
    from expunge.methods.relearn import Relearn

_WARM_UP = 0.1
"""Share of the steps over which the learning rate rises."""
_TRIES = 3
"""Times a pass is made, each at half the learning rate, where it diverges."""
_CAME_BACK = 0.5
"""Share of its accuracy on trusted examples that the network must have again in the last pass."""
_PROBE = 2048
"""Trusted examples on which its accuracy at the start is measured."""
_CONTROL = 100
"""Largest number of unlisted others that are set aside beside a label's neighbours."""
_CLEARLY = 0.25
"""By how much more of the neighbours than of the control must be given another label."""
_FEW = 10
"""Known examples below which the share that was learned is not known well enough to act on it."""
_LEARNED = 0.5
"""Share of the known ones of a label that have it after relearning, from which others taught it again."""
_MEMORISED = 0.97
"""Accuracy on retained examples from which a network has memorised them."""
_KEPT_UNMEMORISED = 0.85
"""Share of the weights that is kept where it has not, at least; and, with augmentation, the factor on the rate."""
_RATE_UNMEMORISED = 0.25
_SMALL = 1000
"""Training examples below which a network comes back too little from losing more than the rest of this share."""
_KEPT_SMALL = 0.7
_CLAMP = 1e-4
"""Keeps log(1 - <p, t>) finite, as in the published code."""


class Run:
    """One attempt: the network, who is flagged and who is quarantined, and what was predicted of everybody."""

    def __init__(
        self,
        method: Relearn,
        model: nn.Module,
        request: Request,
        how: Continued,
        attempt: int = 0,
        prefix: FrozenPrefix | None = None,
        neighbours: Neighbours | None = None,
        told: Tensor | None = None,
    ) -> None:
        self.method, self.model, self.request, self.how = method, model, request, how
        self.attempt, self.prefix = attempt, prefix
        train = self.train = self.inputs = request.train
        n, place = len(train), train.device
        self.known = request.forget_mask
        self.flagged = self.known.clone()
        self.quarantined = torch.zeros_like(self.known)
        self.control = torch.zeros_like(self.known)
        self.neighbours = neighbours or Neighbours(self.quarantined, {})
        self.flagged |= self.neighbours.found
        self.position = torch.zeros(len(train.source), dtype=torch.int64, device=place)
        self.position[train.index] = torch.arange(n, device=place)
        listed = request.forget.index
        # A row for each of the known ones, and one for all others; zeros where nothing is told.
        self.told = torch.zeros(len(listed) + 1, train.n_classes, device=place)
        if told is not None:
            self.told[:-1] = told
        self.row = torch.full((n,), len(listed), dtype=torch.int64, device=place)
        self.row[self.position[listed]] = torch.arange(len(listed), device=place)
        self.average = torch.zeros(n, train.n_classes, device=place)
        self.latest = torch.zeros(n, train.n_classes, dtype=torch.float16, device=place)
        self.margin = torch.zeros(n, device=place)
        self.seen = torch.zeros_like(self.known)
        self.order = request.generator("order")
        self.number = 0
        self.size, self.passes = method.passes(n, how.batch_size)
        self.steps = batch_count(n, self.size)
        self.keep = 1.0

    @property
    def trusted(self) -> Tensor:
        """Bool (N,): neither flagged nor quarantined."""
        return ~(self.flagged | self.quarantined)

    def relearn(self) -> bool:
        """Make steps 1 to 3; return whether the network has come back."""
        method, request = self.method, self.request
        retained = request.retain
        probe = retained.select(torch.randperm(len(retained), generator=request.generator("probe"))[:_PROBE])
        before = _accuracy(predict(self.model, probe, request.numerics), probe.labels)
        if method.neighbours and not bool(self.neighbours.found.any()):
            self._quarantine()
        factor = self._choose(before)
        shrink_and_perturb(self.model, self.keep, request.generator("shrink"), request.start)
        with self._inputs() as self.inputs:
            self._train(factor)
        return float((self.margin < 0)[self.trusted].float().mean()) >= _CAME_BACK * before

    @property
    def good(self) -> float:
        """Share of the flagged unlisted ones that is expected to be good; they are all neighbours."""
        labels = self.train.labels[self.flagged & ~self.known].tolist()
        return sum(self.neighbours.good[label] for label in labels) / max(1, len(labels))

    @property
    def known_given(self) -> float:
        """Share of the known ones that had their given label in the last pass, which was trained against it."""
        return float((self.margin < 0)[self.known].float().mean())

    def look_again(self) -> Neighbours | None:
        """Return who taught the network again what the known ones of a label have in common; ``None`` for nobody.

        A rule that unlisted examples follow may lie in no part of the network at first, where each was memorised by
        itself. Where the relearned network gives most of the known ones their label all the same, it has learned the
        rule, and they are told apart inside it.
        """
        labels, right = self.train.labels, self.margin < 0
        listed, given = (
            torch.bincount(labels[rows], minlength=self.train.n_classes)
            for rows in (self.known, self.known & right)
        )
        learned = ((listed >= _FEW) & (given > _LEARNED * listed)).nonzero().flatten().tolist()
        if not (learned and self.method.neighbours):
            return None
        neighbours = self._look(learned)
        return neighbours if bool(neighbours.found.any()) else None

    def _inputs(self) -> AbstractContextManager[Examples]:
        """Return the training set, with what frozen blocks put out in place of inputs where that was kept."""
        return nullcontext(self.train) if self.prefix is None else self.prefix.given_to(self.model)

    def _train(self, factor: float) -> None:
        """Make all passes, and judge the neighbours after half of them."""
        request, optimizer = self.request, self.how.optimiser.over(self.model)
        for number in range(self.passes):
            self.number = number
            loss, factor = self._pass(optimizer, factor)
            self._share()
            right = self.margin < 0
            request.meter.write(
                epoch=number + 1, keep=self.keep, lr=self.how.optimiser.lr * factor, loss=loss,
                retain_accuracy=float(right[self.trusted].float().mean()),
                forget_accuracy=float(right[self.known].float().mean()), flagged=int(self.flagged.sum()),
            )  # fmt: skip
            if number + 1 == self.passes // 2:
                self._judge()

    def finished(self) -> nn.Module:
        """Estimate the statistics, hand over who was flagged, and return the network."""
        request = self.request
        with self._inputs() as train:
            recalibrate(
                self.model,
                trusted := train.select(self.trusted),
                request.numerics,
                generator=self.order,
                augment=self.how.augment,
            )
            if self.method.class_shares:
                self._bring_back(trusted)
        wrong = wrong_label_probability(self.latest.float(), self.train.labels, ~self.known)
        found = (self.flagged & ~self.known).nonzero().flatten()
        found = found[wrong[found].argsort(descending=True)]
        request.found = Found(found, wrong, self.good)
        return self.model

    def _bring_back(self, trusted: Examples) -> None:
        request = self.request
        lost = bring_back_lost_classes(self.model, trusted, request.numerics, request.generator("shares"))
        if lost:
            request.note(
                f"{len(lost)} of {self.train.n_classes} classes were given less than half as often as they are there "
                f"(the first: {lost[0]}); the bias of the last layer was set so that every class has its share again"
            )

    def _look(self, learned: Collection[int] = ()) -> Neighbours:
        found = feature_neighbours(
            self.model, self.train, self.known, self.request.numerics,
            separation=self.method.separation, share=self.method.neighbour_cap, learned=learned,
        )  # fmt: skip
        if (team := current_team()) is not None:
            found = Neighbours(team.agree(found.found), team.agree_on(dict(found.good)))
        return found

    def _quarantine(self) -> None:
        labels = self.train.labels
        self.neighbours = self._look()
        self.quarantined = self.neighbours.found.clone()
        draw = self.request.generator("control")
        for label in torch.unique(labels[self.quarantined]).tolist():
            mine = labels == label
            others = (mine & self.trusted).nonzero().flatten()
            count = min(int((mine & self.quarantined).sum()), len(others) // 10, _CONTROL)
            self.control[others[torch.randperm(len(others), generator=draw)[:count].to(others.device)]] = True
        self.quarantined |= self.control

    def _choose(self, before: float) -> float:
        """Set the share of the weights that is kept; return the factor on the learning rate.

        A network that does not know all of its training set has memorised little that would have to be shaken
        loose, and comes back slowly.
        """
        method = self.method
        keep, rate = usual_share(self.model, self.how.optimiser.name), 1.0
        if len(self.train) < _SMALL:
            keep = max(keep, _KEPT_SMALL)
        if self.request.start is not None:
            keep = 0.0
        elif before < _MEMORISED:
            keep = max(keep, _KEPT_UNMEMORISED)
            rate = _RATE_UNMEMORISED if self.how.augment else 1.0
        self.keep = 1 - 0.5**self.attempt * (1 - (keep if method.keep is None else method.keep))
        return 0.5**self.attempt * (rate if method.lr is None else 1.0)

    def _pass(self, optimizer: torch.optim.Optimizer, factor: float) -> tuple[float, float]:
        """Make one pass; return its mean loss and the factor on the learning rate that it took."""
        request, share = self.request, 1 / self.passes
        rate = self.how.optimiser.lr
        tried: list[str] = []
        while len(tried) < _TRIES:
            weights, state = copy.deepcopy(self.model.state_dict()), copy.deepcopy(optimizer.state_dict())
            average = self.average.clone()
            if tried:
                request.note(
                    f"pass {self.number + 1} diverged; made again from its start at half the learning rate "
                    f"({rate * factor:g})"
                )
            tried.append(f"{rate * factor:g}")
            try:
                loss = fit(
                    self.model,
                    [self.inputs.batches(self.size, self.order, augment=self.how.augment)],
                    self._objective,
                    optimizer,
                    request.numerics,
                    request.meter,
                    schedule=partial(self._schedule, factor=factor),
                    steps=self.steps,
                    progress=request.stage(self.number * share, (self.number + 1) * share),
                )
            except Diverged:
                self.model.load_state_dict(weights)
                optimizer.load_state_dict(state)
                self.average = average
                factor /= 2
            else:
                return loss, factor
        raise Diverged(
            f"pass {self.number + 1} diverged at the learning rates {', '.join(tried)} ({self.how.why}); give a lower "
            "one, or the optimiser of the first training"
        )

    def _schedule(self, step: int, steps: int, factor: float) -> float:
        """Up over the first tenth of all steps, then half a cosine to 0."""
        at, total = self.number * self.steps + step, self.passes * self.steps
        up = max(1, round(_WARM_UP * total))
        if at < up:
            return factor * (at + 1) / up
        return factor * 0.5 * (1 + math.cos(math.pi * (at - up + 1) / (total - up)))

    def _objective(self, model: nn.Module, batch: Batch) -> Loss:
        method, y = self.method, batch.y
        i = self.position[batch.index]
        logits = model(batch.x).float()
        log_p = logits.log_softmax(1)
        p = log_p.exp()
        target = self._remember(i, p.detach(), y)
        trusted, flagged = self.trusted[i].float(), self.flagged[i].float()
        each = trusted * F.nll_loss(log_p, y, reduction="none")
        if method.early_learning:
            agreement = (p.clamp(_CLAMP, 1 - _CLAMP) * target).sum(1)
            each = each + method.early_learning * trusted * (1 - agreement).clamp(min=_CLAMP).log()
        if method.not_label:
            others = logits.scatter(1, y[:, None], float("-inf")).logsumexp(1)
            each = each + method.not_label * flagged * (logits.logsumexp(1) - others)
        if method.own_label and self.number:
            own = target.scatter(1, y[:, None], 0.0).square()
            own, told = own / own.sum(1, keepdim=True).clamp(min=1e-12), self.told[self.row[i]]
            own = torch.where(told.any(1, keepdim=True), told, own)
            each = each - method.own_label * flagged * (own * log_p).sum(1)
        return Loss(each.mean(), len(batch))

    @torch.no_grad()
    def _remember(self, i: Tensor, p: Tensor, y: Tensor) -> Tensor:
        """Keep what is predicted of examples ``i`` before the step, and return their average predictions t."""
        given = p.gather(1, y[:, None])
        margin = (p.scatter(1, y[:, None], 0.0).amax(1, keepdim=True) - given).squeeze(1)
        self.margin[i] = margin
        self.latest[i] = p.half()
        target = torch.lerp(p, self.average[i], self.method.memory)
        self.average[i] = target
        self.seen[i] = True
        return target

    def _share(self) -> None:
        """Bring together what several processes predicted in this pass, each of its part of every batch."""
        if (team := current_team()) is not None:
            self.average = team.gather(self.average, self.seen)
            self.latest = team.gather(self.latest, self.seen)
            self.margin = team.gather(self.margin, self.seen)
            self.seen[:] = False

    def _judge(self) -> None:
        """Flag neighbours, of the labels where the network gives clearly more of them another label than others.

        It has learned neither.
        """
        labels, disagrees, found = self.train.labels, self.margin > 0, self.neighbours.found
        for label in self.neighbours.good:
            mine, beside = found & (labels == label), self.control & (labels == label)
            if not bool(mine.any()):
                continue
            usual = float(disagrees[beside].float().mean()) if bool(beside.any()) else 0.5 - _CLEARLY
            if float(disagrees[mine].float().mean()) > usual + _CLEARLY:
                self.flagged |= mine
        self.quarantined[:] = False
        self.control[:] = False


def nothing_to_repair(method: Relearn, answers: Tensor, request: Request) -> bool:
    """Return whether the logits ``answers`` give few of the known ones their given label; said if so."""
    known = request.forget
    given = answers.argmax(1) == known.labels
    if len(known) < _FEW or float(given.float().mean()) > method.least_learned:
        return False
    request.note(
        f"nothing to repair: the model gives only {int(given.sum())} of {len(known)} listed examples their given "
        "label; it was left as it was"
    )
    return True


def usual_share(model: nn.Module, optimiser: str = "sgd") -> float:
    """Return the share of the weights that is kept where those the training began from are not known.

    A step of Adam has the size of the learning rate whatever the gradient is, so that a few passes turn fewer of the
    weights before a batch norm, whose direction alone counts. Networks with layer norms do not come back at all.
    """
    if any(isinstance(module, nn.LayerNorm) for module in model.modules()):
        return 1.0
    return 0.55 if optimiser != "sgd" and batch_norms(model) else 0.4


def _accuracy(logits: Tensor, labels: Tensor) -> float:
    if len(labels) == 0:
        raise InvalidInput("there is no retained example to relearn from; leave some out of the list")
    return float((logits.argmax(1) == labels).float().mean())
