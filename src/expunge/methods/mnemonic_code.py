"""One-shot forgetting of classes with mnemonic codes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from expunge.errors import InvalidInput
from expunge.methods.base import Method, Needs, Reference, Request, positive, searched
from expunge.methods.importance import trainable
from expunge.training.loop import training_mode
from expunge.training.numerics import has_float64

_FLOOR = 1e-16


@dataclass(frozen=True, kw_only=True)
class MnemonicCode(Method):
    """Move each parameter by how much more the forgotten classes' codes depend on it than the others' do.

    With g_c the gradient of the cross-entropy of code xi_c under its label c, elementwise:
    f_F = mean over c in C_F of g_c^2, f_R = mean over c in C_R of g_c^2,
    eta = (f_F + e / |C_F|) / (f_R + e / |C_R|), e = 1e-16;
    w <- w + s alpha eta,  alpha = min(lambda1, lambda2 / max eta) for each parameter tensor.
    s, one sign for the whole network, is the one after which more codes of C_R are classified and fewer of
    C_F (accuracy on the first plus error on the second); minus if they tie. One step, no data: as many
    backward passes as there are classes, of one code each, in evaluation mode and float32.

    Symbols: s -> ``sign``.

    Args:
        lambda1: gain where the ratio is moderate.
        lambda2: the largest move within a tensor. Published, lambda1 and lambda2: 1e-3 and 10 (MNIST), 1e-5 and 1e4
            (CIFAR-10), 1e-4 and 1 to 100 (birds and cars). They depend on how far the training went, and on the class.
        sign: "choose" by the codes, or always "plus" or "minus".

    Raises:
        InvalidInput: a value outside its range.

    Departures: e keeps the ratio finite (not published); a parameter on which no code depends moves by
    alpha |C_R| / |C_F|. Frozen parameters stay.
    """

    name = "mnemonic_code"
    needs = Needs.CLASSES | Needs.CODES
    touches = "parameters sensitive to the class's code"
    preparation = "codes"
    reference = Reference(
        "One-Shot Machine Unlearning with Mnemonic Code",
        "Yamashita, Yamada, Shibata",
        2024,
        "ACML 2024, PMLR 260; arXiv 2306.05670",
    )

    lambda1: float = searched(1e-3, 1e-6, 1.0, log=True)
    lambda2: float = searched(10.0, 0.1, 1e5, log=True)
    sign: str = "choose"

    def __post_init__(self) -> None:
        positive(lambda1=self.lambda1, lambda2=self.lambda2)
        if self.sign not in ("choose", "plus", "minus"):
            raise InvalidInput(f"sign must be 'choose', 'plus' or 'minus', got {self.sign!r}")

    def check(self, model: nn.Module, request: Request) -> None:
        """Refuse codes that do not fit the model or the classes, and to forget everything."""
        codes, n_classes = request.codes, request.n_classes
        if len(request.classes) >= n_classes:
            raise InvalidInput(f"all of the {n_classes} classes are to be forgotten; none would remain")
        if codes.ndim < 2 or len(codes) != n_classes or not bool(torch.isfinite(codes).all()):
            raise InvalidInput(
                f"codes must be finite and one for each of the {n_classes} classes, (n_classes, ...), got "
                f"{tuple(codes.shape)}; give those the model was trained with"
            )
        first = next(iter(trainable(model).values()))
        try:
            with torch.no_grad(), training_mode(model, False):
                logits = model(codes[:1].to(first))
        except (RuntimeError, ValueError, IndexError) as error:
            raise InvalidInput(
                f"codes of shape {tuple(codes.shape[1:])} are no inputs of {type(model).__name__}: {error}"
            ) from error
        if logits.shape != (1, n_classes):
            raise InvalidInput(
                f"{type(model).__name__} gives {tuple(logits.shape)} for one code, expected (1, {n_classes})"
            )

    def unlearn(self, model: nn.Module, request: Request) -> nn.Module:
        """Move the parameters in place and return ``model``."""
        codes = request.numerics.place_inputs(request.codes.float())
        forget = list(request.classes)
        retain = [label for label in range(request.n_classes) if label not in forget]
        parameters = trainable(model)
        with training_mode(model, False):
            forgotten = _mean_square_gradients(model, parameters, codes, forget)
            retained = _mean_square_gradients(model, parameters, codes, retain)
            request.meter.count(len(codes))
            start = {name: parameter.detach().clone() for name, parameter in parameters.items()}
            steps = {
                name: self._step(
                    (forgotten[name] + _FLOOR / len(forget)) / (retained[name] + _FLOOR / len(retain))
                )
                for name in parameters
            }
            # integers, so that a tie is a tie: the score times |C_F| |C_R|
            scores = {}
            for s in (1, -1):
                _move(parameters, start, steps, s)
                kept, lost = _right(model, codes, retain), len(forget) - _right(model, codes, forget)
                scores[s] = kept * len(forget) + lost * len(retain)
            chosen = {"plus": 1, "minus": -1}.get(self.sign, 1 if scores[1] > scores[-1] else -1)
            _move(parameters, start, steps, chosen)
        whole = len(forget) * len(retain)
        request.meter.write(
            sign=chosen,
            score_plus=scores[1] / whole,
            score_minus=scores[-1] / whole,
            largest_move=max(float(step.max()) for step in steps.values()),
        )
        request.progress(1.0)
        return model

    def _step(self, eta: Tensor) -> Tensor:
        """Return alpha eta of one tensor, float64."""
        return min(self.lambda1, self.lambda2 / float(eta.max())) * eta


def _mean_square_gradients(
    model: nn.Module, parameters: Mapping[str, nn.Parameter], codes: Tensor, labels: list[int]
) -> dict[str, Tensor]:
    """Mean over ``labels`` of the squared gradient at the label's code, float64 by parameter name."""
    sums = {name: _wide(torch.zeros_like(parameter)) for name, parameter in parameters.items()}
    for label in labels:
        # a context of its own: in half precision the gradients of well-known codes underflow to zero
        with torch.enable_grad(), torch.autocast(codes.device.type, enabled=False):
            target = torch.tensor([label], device=codes.device)
            loss = nn.functional.cross_entropy(model(codes[label : label + 1]), target)
            gradients: tuple[Tensor | None, ...] = torch.autograd.grad(
                loss, list(parameters.values()), allow_unused=True
            )
        for name, gradient in zip(parameters, gradients, strict=True):
            if gradient is None:
                continue
            if not bool(torch.isfinite(gradient).all()):
                raise InvalidInput(
                    f"the gradient of {name!r} at the code of class {label} is not finite; the model is broken"
                )
            sums[name] += _wide(gradient) ** 2
    return {name: total / len(labels) for name, total in sums.items()}


def _wide(tensor: Tensor) -> Tensor:
    """Return ``tensor`` in float64, so that squares of small gradients do not vanish; on the CPU if need be."""
    return (tensor if has_float64(tensor.device) else tensor.cpu()).detach().double()


@torch.no_grad()
def _move(
    parameters: Mapping[str, nn.Parameter],
    start: Mapping[str, Tensor],
    steps: Mapping[str, Tensor],
    sign: int,
) -> None:
    for name, parameter in parameters.items():
        parameter.copy_((_wide(start[name]) + sign * steps[name]).to(parameter.dtype))


@torch.no_grad()
def _right(model: nn.Module, codes: Tensor, labels: Iterable[int]) -> int:
    """How many of the labels' codes are classified as what they stand for."""
    wanted = torch.tensor(list(labels), device=codes.device)
    with torch.autocast(codes.device.type, enabled=False):
        logits = model(codes[wanted])
    return int(((logits.argmax(1) == wanted) & ~logits.isnan().any(1)).sum())
