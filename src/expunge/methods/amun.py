"""Fine-tuning on the nearest adversarial examples of the forget set, with the labels the model gives them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from expunge.data.examples import Batch, Examples
from expunge.data.joined import in_memory, join
from expunge.errors import InvalidInput
from expunge.methods.base import Needs, Reference, Request, positive, searched
from expunge.methods.finetune import FineTune
from expunge.training.cost import Meter
from expunge.training.loop import cross_entropy, training_mode
from expunge.training.numerics import Numerics
from expunge.training.recipe import Recipe

_LEAST = 1e-30
"""What a length is divided by at the least, so that no direction gives no step."""

FINE_TUNED_ON = ("retain", "retain+forget", "forget")


@dataclass(frozen=True)
class Attack:
    """Search for an input near to each example that the model does not give the example's label.

    Projected gradient ascent on the cross-entropy in an L2 ball, x <- Proj(x + eta grad / |grad|), with
    eta = share * epsilon; the ball is doubled for those whose prediction did not change.

    Args:
        epsilon: radius of the first ball, in units of the model's inputs.
        step_share: eta as a share of the radius.
        steps: ascent steps in each ball.
        doublings: how often the radius is doubled at the most.
    """

    epsilon: float
    step_share: float = 0.1
    steps: int = 50
    doublings: int = 10

    def __call__(
        self, model: nn.Module, batch: Batch, numerics: Numerics, meter: Meter
    ) -> tuple[Tensor, Tensor]:
        """Return inputs (B, ...) and the labels int64 (B,) that ``model`` gives them, -1 where none was found.

        ``model`` is in evaluation mode meanwhile and is not changed.
        """
        origin = batch.x.detach()
        found, labels = origin.clone(), torch.full_like(batch.y, -1)
        radius = self.epsilon
        with training_mode(model, False):
            for _ in range(self.doublings + 1):
                open_ = (labels < 0).nonzero().flatten()
                if not len(open_):
                    break
                inputs, given = self._in_ball(model, origin[open_], batch.y[open_], radius, numerics, meter)
                found[open_], labels[open_] = inputs, given
                radius *= 2
        return found, labels

    def _in_ball(
        self, model: nn.Module, origin: Tensor, y: Tensor, radius: float, numerics: Numerics, meter: Meter
    ) -> tuple[Tensor, Tensor]:
        """One ball: as :meth:`__call__`; an example stays where its prediction first differs from ``y``."""
        current, labels = origin.clone(), torch.full_like(y, -1)
        for number in range(self.steps + 1):
            open_ = (labels < 0).nonzero().flatten()
            if not len(open_):
                break
            x = numerics.place_inputs(current[open_]).detach().requires_grad_(True)
            with torch.enable_grad():
                with numerics.autocast():
                    logits = model(x).float()
                loss = _margins(logits, y[open_]).sum()
            predicted = logits.detach().argmax(1)
            changed = predicted != y[open_]
            labels[open_[changed]] = predicted[changed]
            if number == self.steps or bool(changed.all()):
                continue
            # by the gradient of the input alone: the weights take no part and keep no gradient
            (slope,) = torch.autograd.grad(loss, x)
            meter.count(len(open_))
            still = open_[~changed]
            step = _rescaled(slope[~changed], self.step_share * radius)
            offset = current[still] + step - origin[still]
            current[still] = origin[still] + _shortened(offset, radius)
        return current, labels


def _margins(logits: Tensor, y: Tensor) -> Tensor:
    """Return m = log sum over k != y of exp z_k, minus z_y: (B,); the cross-entropy is log(1 + exp m).

    So its gradient has the direction of that of the cross-entropy, which is all a step takes, and it does
    not round to 0 where the model is certain.
    """
    label = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, y[:, None], True)
    others = logits.masked_fill(label, -torch.inf).logsumexp(1)
    return others - logits.gather(1, y[:, None]).squeeze(1)


def _norms(vectors: Tensor) -> Tensor:
    """L2 norm of each example, shaped to divide by: (B, 1, ...); never zero."""
    norms: Tensor = vectors.flatten(1).norm(dim=1).clamp_min(_LEAST)
    return norms.view(-1, *[1] * (vectors.ndim - 1))


def _rescaled(vectors: Tensor, length: float) -> Tensor:
    # Divided by the largest entry first: squares of a confident network's gradients underflow.
    largest = vectors.flatten(1).abs().amax(1).view(-1, *[1] * (vectors.ndim - 1))
    scaled = vectors / largest.clamp_min(_LEAST)
    return scaled * (length / _norms(scaled))


def _shortened(vectors: Tensor, length: float) -> Tensor:
    return vectors * (length / _norms(vectors)).clamp_max(1)


@dataclass(frozen=True, kw_only=True)
class AMUN(FineTune):
    """Fine-tune on the nearest adversarial example of each forget example, with the wrong label it gets.

    min_theta  mean over D_r and D_A of CE(f_theta(x), y), D_A = {(x_adv, argmax f_o(x_adv))}:
    for (x, y) in D_f, x_adv = PGD(x, epsilon), epsilon = epsilon_init, doubled until argmax f_o(x_adv) != y.

    Symbols: epsilon_init -> ``epsilon``, number of PGD steps -> ``pgd_steps``.

    Args:
        augment: train on augmented inputs; adversarial inputs are never augmented.
        epochs: passes over what is fine-tuned on.
        data: what joins D_A: "retain" (D_r), "retain+forget" (D_r and D_f with its given labels) or
            "forget" (D_f with its given labels: the paper's setting in which D_r cannot be had).
        epsilon: first radius, L2, in units of the model's inputs. 0.4 is 0.1 in pixels in [0, 1] where
            inputs were divided by a standard deviation of 0.25, which is about that of CIFAR-10.
        step_share: length of a PGD step as a share of the radius.
        pgd_steps: steps in each ball.
        doublings: how often the radius is doubled at the most; an example without a find is left out.

    Raises:
        InvalidInput: a setting out of range, or no example has an adversarial one within the last radius.

    Source: Ebrahimpour-Boroojeny, Sundaram, Chandrasekaran, ICML 2025, arXiv 2503.00917.

    Departures: an example is kept at the first step at which its prediction changes, which is nearer than
    the last step of PGD. Inputs are not clipped to the range of pixels, which the normalised input does not
    tell; PGD starts at the example without noise; the learning rate follows a schedule of ours. The first
    radius, the step, the learning rate and the epochs are reconstructed. Given labels may be wrong
    here, so D_f itself is left out by default; D_r stays declared, though "forget" does not read it.
    """

    name = "amun"
    perturbs_inputs = True
    needs = Needs.FORGET | Needs.RETAIN
    reference = Reference(
        "AMUN: Adversarial Machine UNlearning",
        "Ebrahimpour-Boroojeny, Sundaram, Chandrasekaran",
        2025,
        "ICML 2025, arXiv 2503.00917",
    )

    lr: float = searched(0.01, 1e-3, 0.1, log=True)
    batch_size: int = 128
    epochs: int = searched(10, 2, 20, log=True)
    data: str = "retain"
    epsilon: float = 0.4
    step_share: float = 0.1
    pgd_steps: int = 50
    doublings: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(epsilon=self.epsilon, step_share=self.step_share, pgd_steps=self.pgd_steps)
        if self.doublings < 0:
            raise InvalidInput(
                f"doublings must be at least 0, got {self.doublings}; 0 keeps the first radius"
            )
        if self.data not in FINE_TUNED_ON:
            raise InvalidInput(
                f"data must be one of {', '.join(map(repr, FINE_TUNED_ON))}, got {self.data!r}; "
                "it names what is fine-tuned on besides the adversarial examples"
            )

    def unlearn(self, model: nn.Module, request: Request) -> nn.Module:
        """Train in place and return ``model``."""
        parts = [self.adversarial(model, request)]
        if "retain" in self.data:
            parts.append(request.retain)
        if "forget" in self.data:
            parts.append(request.forget)
        self.fit(model, join(*parts), cross_entropy, request, epochs=self.epochs, schedule=self.schedule)
        return model

    def adversarial(self, model: nn.Module, request: Request) -> Examples:
        """Return D_A: the adversarial examples of the forget set with the labels ``model`` gives them."""
        attack = Attack(self.epsilon, self.step_share, self.pgd_steps, self.doublings)
        forget = request.forget
        inputs, labels = [], []
        for batch in forget.batches(self.batch_size):
            x, y = attack(model, batch, request.numerics, request.meter)
            inputs.append(x[y >= 0])
            labels.append(y[y >= 0])
        count = sum(len(part) for part in labels)
        request.meter.write(adversarial=count, not_found=len(forget) - count)
        if not count:
            raise InvalidInput(
                f"no adversarial example was found for any of the {len(forget)} forget examples within radius "
                f"{self.epsilon * 2**self.doublings:g}; raise epsilon or doublings"
            )
        return in_memory(torch.cat(inputs), torch.cat(labels), forget.n_classes)

    def typical_epochs(self, recipe: Recipe | None) -> float:
        """The passes over the whole, and the attack on a tenth of it, most of which ends within one ball."""
        return self.epochs + 0.1 * self.pgd_steps
