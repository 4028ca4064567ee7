"""Forget examples blended with remaining images of the classes they resemble."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from expunge.data.examples import Examples
from expunge.data.images import ImageSource
from expunge.data.joined import in_memory
from expunge.errors import InvalidInput
from expunge.methods.base import Needs, Reference, Request, searched
from expunge.methods.relabelling import Relabelling
from expunge.training.loop import predict
from expunge.training.recipe import Recipe

N_MASKS = 4
_CHUNK = 1024  # hybrids that are blended at a time


@dataclass(frozen=True, kw_only=True)
class NatMU(Relabelling):
    """Blend every forgotten image with remaining images, label it by them and fine-tune on everything.

    h_k = M_k * x_f + (1 - M_k) * x_r, labelled y_r, for k = 1 .. 4, with M_k = clip(m_k + delta, 0, 1);
    min_theta  mean over D_r ∪ H of CE(f_theta(x), y), H = {(h_k, y_r)}.
    m_1 .. m_4 are triangular bands: horizontal and vertical with their ridge in the middle, then horizontal
    and vertical with their ridges at the borders (:func:`masks`). The k-th most probable other class of x_f
    under the model at the start gives the class of x_r, a remaining example that is used once at most. The
    hybrids are made once, from plain images, and fed plain.

    Symbols: delta -> ``delta``, 4 -> ``rivals``.

    Args:
        delta: is added to every mask; the lower, the less of the forgotten image is in its hybrids.
        rivals: hybrids of each forgotten image, at most 4 and less than the number of classes.

    Raises:
        InvalidInput: a setting out of its range; too few classes or remaining images; inputs that are not
            of a floating-point type.

    Source: He et al. (TPAMI 2025); the defaults are theirs for CIFAR-10, sample-wise.

    Departures: where a class has no unused image left, the image's next most probable class gives one, in
    every setting (published: for the hardest examples; for random ones a rule that could fail). If all
    other classes of an image are used up, one gives a second image; if nothing is left, the hybrid is left
    out; the log counts both. Classes are ranked by logits, which order them as their probabilities do.
    Pixels of images are blended and truncated as published; other inputs are blended as they are. A vector
    is an image of one row, whose horizontal bands are its vertical ones: 2 different masks. Odd sides,
    which were not published, have their middle pixel on the ridge.
    """

    name = "natmu"
    perturbs_inputs = True
    reference = Reference(
        "Towards Natural Machine Unlearning", "He, Li, Cheng, Huang, Huang", 2025, "TPAMI; arXiv 2405.15495"
    )

    lr: float = searched(1e-3, 3e-4, 2e-3, log=True)
    weight_decay: float = searched(2e-3, 0.0, 2e-3)
    reinit_head: bool | None = None
    delta: float = searched(-0.19, -0.2, 0.05)
    rivals: int = N_MASKS

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.rivals <= N_MASKS:
            raise InvalidInput(f"rivals must lie in 1..{N_MASKS}, one mask each, got {self.rivals}")
        if not -1 <= self.delta <= 1:
            raise InvalidInput(
                f"delta must lie in -1..1, the range in which it changes a mask, got {self.delta}"
            )

    def typical_epochs(self, recipe: Recipe | None) -> float:
        """The passes, each longer than one over the training set; here as if a tenth were forgotten."""
        return self.epochs * (0.9 + 0.1 * self.rivals)

    def check(self, model: nn.Module, request: Request) -> None:
        """Refuse a request that has too few classes or remaining images to blend with."""
        forget, retain, n_classes = request.forget, request.retain, request.n_classes
        if n_classes <= self.rivals:
            what = "two-class" if n_classes == 2 else f"{n_classes}-class"
            fits = f"set rivals={n_classes - 1}, or use" if n_classes > 1 else "use"
            raise InvalidInput(
                f"method {self.name!r} lacks classes: this is a {what} problem for a top-{self.rivals} rule, "
                f"which blends every forgotten image with {self.rivals} other classes; {fits} another method "
                f"({self.alternatives(request.available)})"
            )
        if len(retain) == 0:
            raise InvalidInput(
                f"method {self.name!r} lacks remaining images: the forget set is all {len(forget)} training "
                "examples, so there is none to blend with; name fewer, or use a method that reads no "
                f"remaining data ({self.alternatives(request.available & ~Needs.RETAIN)})"
            )
        stock = torch.bincount(retain.labels, minlength=n_classes)
        wanted = torch.bincount(forget.labels, minlength=n_classes)
        for label in wanted.nonzero().flatten().tolist():
            others = int((stock > 0).sum()) - int(stock[label] > 0)
            if others < self.rivals:
                fits = f"set rivals={others}, or use" if others else "use"
                raise InvalidInput(
                    f"method {self.name!r} lacks classes: it blends every forgotten image with {self.rivals} "
                    f"other classes, but besides class {label} the remaining images have only {others}; "
                    f"{fits} another method ({self.alternatives(request.available)})"
                )
            self._check_stock(
                int(len(retain) - stock[label]), int(wanted[label]), f" of class {label}", request
            )
        self._check_stock(len(retain), len(forget), "", request)
        first = _read(retain, torch.zeros(1, dtype=torch.int64))
        if not first.is_floating_point():
            raise InvalidInput(
                f"method {self.name!r} blends inputs, which must be of a floating-point type, got "
                f"{first.dtype}; use another method ({self.alternatives(request.available)})"
            )
        super().check(model, request)

    def _check_stock(self, there: int, forgotten: int, which: str, request: Request) -> None:
        """Refuse if ``forgotten`` images need more remaining images than are ``there``."""
        needed = self.rivals * forgotten
        if there < needed:
            fits = there // forgotten
            where = " in the other classes" if which else ""
            advice = f"set rivals={fits}, or use" if fits else "use"
            raise InvalidInput(
                f"method {self.name!r} lacks remaining images: the {forgotten} forgotten images{which} need "
                f"{self.rivals} each, {needed} in all, each used once, but there are {there}{where}; name "
                f"fewer, {advice} another method ({self.alternatives(request.available)})"
            )

    def unlearn(self, model: nn.Module, request: Request) -> nn.Module:
        """Train in place and return ``model``."""
        hybrids = self.hybrids(model, request)
        # after the rivals were read from the model at the start
        self.prepare_head(model, request)
        self.learn(model, request, hybrids)
        return model

    def hybrids(self, model: nn.Module, request: Request) -> Examples:
        """Return the hybrids of the forget set, ``rivals`` for each image in its order."""
        forget, retain = request.forget, request.retain
        ranked = rank_rivals(predict(model, forget, request.numerics), forget.labels)
        chosen = match(ranked.cpu(), retain.labels.cpu(), self.rivals, request.generator("partners"))
        request.meter.write(hybrids=len(chosen.image), repeated=chosen.repeated, left_out=chosen.left_out)
        return blend(forget, retain, chosen, self.delta)


@dataclass(frozen=True)
class Matching:
    """Which remaining example each hybrid is made with; all int64 (K,) on the CPU.

    Attributes:
        image: position in the forget set.
        mask: number of the mask, from 0.
        partner: position in the retain set; no two are equal.
        repeated: hybrids whose class another hybrid of the same image has.
        left_out: hybrids for which no remaining example was left.
    """

    image: Tensor
    mask: Tensor
    partner: Tensor
    repeated: int
    left_out: int


def rank_rivals(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the other classes int64 (F, C - 1) of each image, the most probable first."""
    order = logits.sort(dim=1, descending=True, stable=True).indices
    return order[order != labels.view(-1, 1)].view(len(labels), logits.shape[1] - 1)


def match(ranked: Tensor, labels: Tensor, rivals: int, draw: torch.Generator) -> Matching:
    """Give every image ``rivals`` unused remaining examples, of its most probable classes that have some.

    Images are served in their order; it always ends, whatever the stock.

    Args:
        ranked: int64 (F, C - 1), the other classes of each image, the most probable first.
        labels: int64 (R,) of the remaining examples.
        rivals: examples for each image.
        draw: CPU generator of the order in which the examples of a class are used.
    """
    order = torch.randperm(len(labels), generator=draw)
    stock: dict[int, list[int]] = {}
    for position, label in zip(order.tolist(), labels[order].tolist(), strict=True):
        stock.setdefault(label, []).append(position)
    rows: list[tuple[int, int, int]] = []
    repeated = left_out = 0
    for image, classes in enumerate(ranked.tolist()):
        taken = [label for label in classes if stock.get(label)][:rivals]
        partners = [stock[label].pop() for label in taken]
        while len(partners) < rivals:
            again = next((label for label in classes if stock.get(label)), None)
            if again is None:
                left_out += rivals - len(partners)
                break
            partners.append(stock[again].pop())
            repeated += 1
        rows += [(image, k, partner) for k, partner in enumerate(partners)]
    columns = torch.tensor(rows, dtype=torch.int64).view(-1, 3).unbind(1)
    return Matching(columns[0], columns[1], columns[2], repeated, left_out)


def masks(height: int, width: int, delta: float = 0.0) -> Tensor:
    """Return float32 (4, height, width): the weights M_1 .. M_4 of the forgotten image.

    up(t) = min(t, H - 1 - t) / b and down(t) = (b - 1) / b - up(t) over a side H with b = ceil(H / 2);
    m = up(row), up(column), down(row), down(column); M = clip(m + delta, 0, 1). Along a side of one pixel
    there is no band: the other side's is used.

    Symbols: H -> ``height`` or ``width``, delta -> ``delta``.
    """
    rows, columns = (_bands(side) for side in (height, width))
    found = torch.empty(N_MASKS, height, width)
    for k in range(N_MASKS):
        along_rows = (k % 2 == 0 and height > 1) or width == 1
        profile = rows[k // 2][:, None] if along_rows else columns[k // 2][None, :]
        found[k] = profile
    return (found + delta).clamp(0, 1)


def _bands(side: int) -> tuple[Tensor, Tensor]:
    """The profiles with the ridge in the middle and at the borders, float32 (side,)."""
    half = (side + 1) // 2
    position = torch.arange(side)
    up = torch.minimum(position, side - 1 - position) / half
    return up, (half - 1) / half - up


def blend(forget: Examples, retain: Examples, chosen: Matching, delta: float) -> Examples:
    """Return the hybrids with the labels of their remaining examples, held in memory."""
    labels = retain.labels[chosen.partner.to(retain.device)]
    if len(labels) == 0:
        return retain.select(chosen.partner)
    # both sets are selected from one training set, hence have one source
    source = forget.source if isinstance(forget.source, ImageSource) else None
    parts = []
    for image, mask, partner in zip(
        *(torch.split(part, _CHUNK) for part in (chosen.image, chosen.mask, chosen.partner)), strict=True
    ):
        ours, theirs = _read(forget, image), _read(retain, partner)
        # the last two dimensions are rows and columns; a vector is one row
        height, width = (1, 1, *ours.shape[1:])[-2:]
        weight = masks(height, width, delta).to(ours.device, ours.dtype)[mask.to(ours.device)]
        weight = weight.view(len(image), *[1] * (ours.ndim - 3), *ours.shape[1:][-2:])
        if source is not None:
            ours, theirs = _pixels(ours, source), _pixels(theirs, source)
        mixed = weight * ours + (1 - weight) * theirs
        parts.append(mixed if source is None else mixed.clamp(0, 255).to(torch.uint8))
    mixed = torch.cat(parts)
    if source is not None:
        # kept as bytes, and read exactly as the images they came from
        return Examples.all_of(ImageSource(mixed, source.mean, source.std), labels, retain.n_classes)
    return in_memory(mixed, labels, retain.n_classes)


def _read(examples: Examples, positions: Tensor) -> Tensor:
    """Return the plain inputs at ``positions``."""
    return examples.source.fetch(examples.index[positions.to(examples.device)], None)


def _pixels(inputs: Tensor, source: ImageSource) -> Tensor:
    """Return what the model sees, a trigger included, as whole grey levels float32 0 .. 255."""
    mean = torch.tensor(source.mean, device=inputs.device).view(1, -1, 1, 1)
    std = torch.tensor(source.std, device=inputs.device).view(1, -1, 1, 1)
    return ((inputs * std + mean) * 255).round().clamp(0, 255)
