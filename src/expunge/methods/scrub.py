"""A student that disobeys its teacher on the forget set and obeys it elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from expunge.data.examples import Batch, Examples
from expunge.errors import InvalidInput
from expunge.methods.base import Needs, Reference, Request, positive, searched
from expunge.methods.gradient import GradientMethod
from expunge.methods.teacher import divergence, frozen, softened
from expunge.training.batchnorm import forget_statistics
from expunge.training.loop import Loss, predict, silent
from expunge.training.recipe import Recipe
from expunge.training.schedule import schedule_named

Teacher = Callable[[Tensor], Tensor]
"""Logits of the frozen start model."""


def disobedience(logits: Tensor, x: Tensor, teacher: Teacher, temperature: float) -> Tensor:
    """Mean of T^2 KL(teacher || student), both softened by T, for the student's ``logits`` of inputs ``x``."""
    return temperature**2 * divergence(logits, softened(teacher(x), temperature), temperature).mean()


@dataclass(frozen=True, kw_only=True)
class SCRUB(GradientMethod):
    """Train a student to leave its teacher on the forget set and to follow it on the rest.

    min_theta  alpha mean over D_r of d + gamma mean over D_r of CE(f_theta(x), y) - mean over D_f of d,
    d = T^2 KL(softmax(f_0(x) / T) || softmax(f_theta(x) / T)). In each of the first ``max_epochs`` epochs a pass
    over D_f climbs the last term (max step), in every epoch a pass over D_r descends the others (min step).
    f_0, the teacher, is the model at the start.

    Symbols: T -> ``temperature``.

    Args:
        lr: learning rate of the first epoch.
        batch_size: retained examples a step.
        optimiser: "sgd", "adam" or "adamw"; one for both kinds of step.
        alpha: weight of the divergence on D_r.
        gamma: weight of the cross-entropy on D_r.
        temperature: of both softmaxes.
        epochs: passes over the retain set.
        max_epochs: the first epochs, which begin with a pass over the forget set.
        forget_batch_size: forgotten examples a step.
        schedule: of the learning rate, from epoch to epoch.

    Raises:
        InvalidInput: a setting outside its range.

    Source: Kurmanji, Triantafillou, Hayes, Triantafillou, NeurIPS 2023, section 3; the defaults are the
    authors' for some examples of CIFAR-10.

    Departures: the learning rate falls linearly (published: tenths at listed epochs); a forget batch of one
    example is normalised by running statistics.
    The learning rate and batch sizes are read from the authors' script, the paper only lists ranges.
    """

    name = "scrub"
    needs = Needs.FORGET | Needs.RETAIN
    reference = Reference(
        "Towards Unbounded Machine Unlearning",
        "Kurmanji, Triantafillou, Hayes, Triantafillou",
        2023,
        "NeurIPS 2023, arXiv 2302.09880",
    )

    lr: float = searched(5e-4, 5e-5, 5e-2, log=True)
    batch_size: int = 64
    alpha: float = searched(0.001, 1e-3, 1.0, log=True)
    gamma: float = 0.99
    temperature: float = 4.0
    epochs: int = 5
    max_epochs: int = searched(5, 1, 5)
    forget_batch_size: int = 16
    schedule: str = "warmup_decay"

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(
            temperature=self.temperature,
            epochs=self.epochs,
            max_epochs=self.max_epochs,
            forget_batch_size=self.forget_batch_size,
        )
        if not (self.alpha >= 0 and self.gamma >= 0 and 0 < self.alpha + self.gamma < float("inf")):
            raise InvalidInput(
                f"alpha and gamma must be at least 0, finite, and not both 0, got {self.alpha} and {self.gamma}; "
                "without either nothing would keep the retain set"
            )
        schedule_named(self.schedule)

    def typical_epochs(self, recipe: Recipe | None) -> float:
        """The passes over the retain set."""
        return float(self.epochs)

    def unlearn(self, model: nn.Module, request: Request) -> nn.Module:
        """Train in place and return ``model``."""
        for _ in self.train_by_epoch(model, request):
            pass
        return model

    def train_by_epoch(self, model: nn.Module, request: Request) -> Iterator[int]:
        """Train ``model`` in place; yield the number of each epoch, from 1, when it is over."""
        forget, retain = request.forget, request.retain
        # A copy: a teacher that shares parameters with the student would never be disobeyed.
        teacher = frozen(model, request.numerics)
        optimizer = self.optimiser_over(model)
        forget_order, order = request.generator("forget order"), request.generator("order")
        on_forget = replace(self, batch_size=self.forget_batch_size)

        def climb(model: nn.Module, batch: Batch) -> Loss:
            with forget_statistics(model, batch):
                logits = model(batch.x)
            return Loss(-disobedience(logits, batch.x, teacher, self.temperature), len(batch))

        def descend(model: nn.Module, batch: Batch) -> Loss:
            logits = model(batch.x).float()
            apart = disobedience(logits, batch.x, teacher, self.temperature)
            error = nn.functional.cross_entropy(logits, batch.y)
            return Loss(self.alpha * apart + self.gamma * error, len(batch))

        for epoch in range(self.epochs):
            for group in optimizer.param_groups:
                group["lr"] = self.lr * schedule_named(self.schedule)(epoch, self.epochs)
            if epoch < self.max_epochs:
                on_forget.fit(
                    model,
                    forget,
                    climb,
                    request,
                    epochs=1,
                    optimizer=optimizer,
                    order=forget_order,
                    progress=silent,
                )
            self.fit(
                model, retain, descend, request, epochs=1, optimizer=optimizer, order=order, progress=silent
            )
            request.progress((epoch + 1) / self.epochs)
            yield epoch + 1


def weighted_error(model: nn.Module, examples: Examples, shares: Tensor, request: Request) -> float:
    """Sum over the classes of share times error on that class, in [0, 1]; classes of share 0 are not read."""
    part = examples.select(shares[examples.labels.cpu()] > 0)
    labels = part.labels.cpu()
    wrong = (predict(model, part, request.numerics).argmax(1).cpu() != labels).double()
    total = torch.zeros_like(shares).index_add_(0, labels, wrong)
    count = torch.bincount(labels, minlength=part.n_classes)
    return float((shares * total / count.clamp(min=1)).sum())


def class_shares(examples: Examples) -> Tensor:
    """Float64 (n_classes,), on the CPU: the share of every class among ``examples``."""
    count = torch.bincount(examples.labels.cpu(), minlength=examples.n_classes).double()
    return count / count.sum()


@dataclass(frozen=True, kw_only=True)
class SCRUBRewind(SCRUB):
    """SCRUB, then back to the epoch at which the forget set is forgotten as much as unseen data is unknown.

    With theta_1 ... theta_E the weights after each epoch, e_f the error on D_f and v = e_val(theta_E) the error of
    the last ones on unseen examples that are distributed over the classes as D_f is: the theta_i with the smallest
    abs(e_f(theta_i) - v), of several the last. So that D_f does not stand out by too large an error either.

    Symbols: E -> ``epochs``; those of :class:`SCRUB`.

    Raises:
        InvalidInput: a setting outside its range; unseen data without examples of a class of D_f.

    Source: Kurmanji et al., NeurIPS 2023, section 3, "SCRUB and Rewind".

    Departures: the distribution of D_f is met by weighting the errors of the classes, so that every unseen example
    of them counts (published: a validation set is drawn); given labels stand for the classes, as the true ones
    of a corrupted forget set are not known. Those of :class:`SCRUB`.
    """

    name = "scrub_rewind"
    needs = SCRUB.needs | Needs.UNSEEN

    def check(self, model: nn.Module, request: Request) -> None:
        """Refuse unseen data that lack a class of the forget set."""
        unseen = torch.bincount(request.unseen.labels.cpu(), minlength=request.n_classes)
        lacking = ((class_shares(request.forget) > 0) & (unseen == 0)).nonzero().flatten().tolist()
        if lacking:
            raise InvalidInput(
                f"the {len(request.unseen)} unseen examples have none of class {lacking}, of which the forget set "
                "has some; scrub_rewind compares errors on one distribution: add unseen examples of those "
                "classes, or use 'scrub'"
            )

    def unlearn(self, model: nn.Module, request: Request) -> nn.Module:
        """Train in place, put the chosen epoch's weights back and return ``model``."""
        shares = class_shares(request.forget)
        kept: list[dict[str, Tensor]] = []
        errors: list[float] = []
        for epoch in self.train_by_epoch(model, request):
            # Every epoch may be the one: the error to be met is known only at the end. In main memory.
            kept.append(
                {name: value.detach().to("cpu", copy=True) for name, value in model.state_dict().items()}
            )
            errors.append(weighted_error(model, request.forget, shares, request))
            request.meter.write(epoch=epoch, forget_error=errors[-1])
        reference = weighted_error(model, request.unseen, shares, request)
        chosen = rewind_to(errors, reference)
        model.load_state_dict(kept[chosen])
        request.meter.write(reference_error=reference, chosen_epoch=chosen + 1)
        return model


def rewind_to(errors: list[float], reference: float) -> int:
    """Position of the value closest to ``reference``, of several the last."""
    return min(range(len(errors)), key=lambda place: (abs(errors[place] - reference), -place))
