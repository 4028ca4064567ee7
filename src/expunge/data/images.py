"""Images as uint8 tensors on the device, augmented and normalised a batch at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from expunge.data.examples import Examples, check_labels
from expunge.errors import DataError, InvalidInput
from expunge.fingerprint import fingerprint
from expunge.seeding import sent

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation per channel, of pixels in [0, 1]."""


def rank_in_class(labels: Tensor) -> Tensor:
    """Return int64 (N,): how many examples of the same label come before each, 0 for the first of a class."""
    rank = torch.empty_like(labels, dtype=torch.int64)
    for label in torch.unique(labels):
        members = labels == label
        rank[members] = torch.arange(int(members.sum()), device=labels.device)
    return rank


@dataclass(frozen=True)
class Augmentation:
    """Random crop after zero padding by ``pad`` pixels, and horizontal flip with probability one half.

    Both are drawn per example. ``pad=0, flip=False`` changes nothing.
    """

    pad: int = 0
    flip: bool = False

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return augmented ``images`` (B, C, H, W), same dtype and device."""
        count, _, height, width = images.shape
        if self.pad:
            padded = F.pad(images, [self.pad] * 4)
            shift = sent(torch.randint(0, 2 * self.pad + 1, (2, count), generator=generator), images.device)
            rows = shift[0, :, None] + torch.arange(height, device=images.device)  # (B, H)
            columns = shift[1, :, None] + torch.arange(width, device=images.device)  # (B, W)
            example = torch.arange(count, device=images.device)
            # channels last, so that one gather moves whole pixels
            pixels = padded.permute(0, 2, 3, 1)[example[:, None, None], rows[:, :, None], columns[:, None, :]]
            images = pixels.permute(0, 3, 1, 2)
        if self.flip:
            flipped = sent(torch.rand(count, generator=generator) < 0.5, images.device)
            images = torch.where(flipped[:, None, None, None], images.flip(3), images)
        return images


@dataclass(frozen=True)
class Stamp:
    """A poison trigger: the bottom-right ``size`` x ``size`` block set to ``value`` in every channel.

    It is set on the normalised image after augmentation, so it is never cropped or flipped away.
    """

    size: int = 3
    value: float = 1.0

    def __call__(self, inputs: Tensor, stamped: Tensor) -> Tensor:
        """Return ``inputs`` (B, C, H, W) with the block set where ``stamped`` (B,) is true."""
        inputs = inputs.clone()
        inputs[stamped, :, -self.size :, -self.size :] = self.value
        return inputs


class Normalised:
    """What reads uint8 images as normalised float32; ``device`` and the annotated fields are the source's own."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    augmentation: Augmentation
    device: torch.device

    @property
    def augments(self) -> bool:
        """Whether augmentation changes anything."""
        return self.augmentation != Augmentation()

    @cached_property
    def _scale(self) -> tuple[Tensor, Tensor]:
        mean = torch.tensor(self.mean, device=self.device).view(1, -1, 1, 1)
        std = torch.tensor(self.std, device=self.device).view(1, -1, 1, 1)
        return 1 / (255 * std), -mean / std

    def finished(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return float32 (B, C, H, W): (pixel / 255 - mean) / std, augmented if ``generator`` is given."""
        if generator is not None:
            images = self.augmentation(images, generator)
        factor, offset = self._scale
        return images * factor + offset


@dataclass(frozen=True)
class ImageSource(Normalised):
    """uint8 images (N, C, H, W) in one tensor, read as normalised float32.

    Args:
        images: uint8 (N, C, H, W); on the CPU they may be a file that is mapped into memory.
        mean: per channel, of pixels in [0, 1].
        std: per channel, of pixels in [0, 1].
        augmentation: what an augmented batch goes through.
        stamp: the trigger, if some images carry one.
        stamped: bool (N,), the images that carry it.
        place: device of the batches, where it is another than that of the images.
    """

    images: Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augmentation: Augmentation = Augmentation()
    stamp: Stamp | None = None
    stamped: Tensor | None = None
    place: torch.device | None = None

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """Where the batches live."""
        return self.place or self.images.device

    @property
    def host_rows(self) -> bool:
        """Whether rows are looked up on the CPU, for batches that live elsewhere."""
        return self.device != self.images.device

    def __len__(self) -> int:
        return len(self.images)

    def fetch(self, rows: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return float32 (B, C, H, W): (pixel / 255 - mean) / std, augmented if ``generator`` is given."""
        images = sent(self.images[rows.to(self.images.device)], self.device)
        inputs = self.finished(images, generator)
        if self.stamp is not None and self.stamped is not None:
            inputs = self.stamp(inputs, self.stamped[rows])
        return inputs


@dataclass(frozen=True)
class ImageData:
    """A data set of images: training and test part, decoded once.

    Args:
        name: as in the table of data sets, or the file it was read from.
        train_images: uint8 (N, C, H, W).
        train_labels: int64 (N,).
        test_images: uint8 (M, C, H, W).
        test_labels: int64 (M,).
        classes: one name per class.
        mean: per channel, of pixels in [0, 1]; by default those of the training images.
        std: the same.
        augmentation: the data set's customary training augmentation.
        train_fine: int64 (N,), finer labels of which several share one label, where there are some.
        test_fine: the same for the test images.
        unseen_images: uint8 (U, C, H, W), held out of the training images by :meth:`hold_out`.
        unseen_labels: int64 (U,).

    Raises:
        DataError: shapes, dtypes, counts or labels that do not fit together.
    """

    name: str
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    classes: tuple[str, ...]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    augmentation: Augmentation = Augmentation()
    train_fine: Tensor | None = None
    test_fine: Tensor | None = None
    unseen_images: Tensor | None = None
    unseen_labels: Tensor | None = None

    def __post_init__(self) -> None:
        for part in ("train", "test"):
            images, labels = getattr(self, f"{part}_images"), getattr(self, f"{part}_labels")
            if images.dtype != torch.uint8 or images.ndim != 4:
                raise DataError(
                    f"{self.name}: {part} images must be uint8 (N, C, H, W), got {images.dtype} "
                    f"{tuple(images.shape)}"
                )
            if len(images) != len(labels) or len(images) == 0:
                raise DataError(
                    f"{self.name}: {len(images)} {part} images but {len(labels)} labels; "
                    "both must be of one length and not empty"
                )
            check_labels(labels, len(self.classes))
        if self.train_images.shape[1:] != self.test_images.shape[1:]:
            raise DataError(
                f"{self.name}: training images are {tuple(self.train_images.shape[1:])} but test images are "
                f"{tuple(self.test_images.shape[1:])} (C, H, W)"
            )
        if not self.mean:
            mean, std = channel_statistics(self.train_images)
            object.__setattr__(self, "mean", mean)
            object.__setattr__(self, "std", std)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        _, channels, height, width = self.train_images.shape
        return channels, height, width

    @cached_property
    def content(self) -> str:
        """Hash of every pixel and label, those held out apart."""
        return fingerprint(self.train_images, self.train_labels, self.test_images, self.test_labels)

    def to(self, device: torch.device | str) -> ImageData:
        """Return the data set on ``device``."""
        moved: Any = {name: held.to(device) for name, held in vars(self).items() if isinstance(held, Tensor)}
        return replace(self, **moved)

    def subset(self, n_train: int, seed: int = 0) -> ImageData:
        """Return a class-balanced random part of the training images and the whole test part.

        Raises:
            InvalidInput: ``n_train`` outside ``1..N``.
        """
        total = len(self.train_labels)
        if not 1 <= n_train <= total:
            raise InvalidInput(
                f"a subset of {n_train} training images was asked for; {self.name} has {total}"
            )
        chosen = self._balanced(seed)[:n_train].sort().values.to(self.train_labels.device)
        return replace(self, name=f"{self.name}[{n_train}]", **self._train_part(chosen))

    def imbalanced(self, ratio: float, seed: int = 0) -> ImageData:
        """Return the data set with fewer training images in each later class, the test part whole.

        Class c of C keeps a share ``ratio`` ** (c / (C - 1)) of its images: the first all, the last ``ratio``.

        Source: Cui, Jia, Lin, Song, Belongie, CVPR 2019, section 5.1.

        Raises:
            InvalidInput: ``ratio`` outside ``(0, 1]``.
        """
        if not 0 < ratio <= 1:
            raise InvalidInput(
                f"the imbalance is the share of images the last class keeps and must lie in (0, 1], got {ratio}"
            )
        labels = self.train_labels.cpu()
        share = ratio ** (torch.arange(len(self.classes)) / max(1, len(self.classes) - 1))
        kept = (torch.bincount(labels, minlength=len(self.classes)) * share).round().clamp_min(1)
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
        stays = rank_in_class(labels[order]) < kept[labels[order]]
        chosen = order[stays].sort().values.to(self.train_labels.device)
        return replace(self, name=f"{self.name}~{ratio:g}", **self._train_part(chosen))

    def hold_out(self, count: int, seed: int = 0) -> ImageData:
        """Return the data set with ``count`` training images, class-balanced, set apart as unseen.

        Raises:
            InvalidInput: ``count`` outside ``1..N - 1``.
        """
        total = len(self.train_labels)
        if not 1 <= count < total:
            raise InvalidInput(
                f"{count} images were to be held out; {self.name} has {total} training images, "
                "and at least one must stay"
            )
        order = self._balanced(seed).to(self.train_labels.device)
        apart, kept = order[:count].sort().values, order[count:].sort().values
        return replace(
            self,
            name=f"{self.name}-{count}",
            unseen_images=self.train_images[apart],
            unseen_labels=self.train_labels[apart],
            **self._train_part(kept),
        )

    def _train_part(self, chosen: Tensor) -> dict[str, Any]:
        return {
            "train_images": self.train_images[chosen],
            "train_labels": self.train_labels[chosen],
            "train_fine": None if self.train_fine is None else self.train_fine[chosen],
        }

    def _balanced(self, seed: int) -> Tensor:
        """A random order of the training images with every prefix class-balanced."""
        order = torch.randperm(len(self.train_labels), generator=torch.Generator().manual_seed(seed))
        # The k-th image of every class before the (k+1)-th of any.
        rank = rank_in_class(self.train_labels.cpu()[order])
        return order[torch.sort(rank, stable=True).indices]

    def unseen(self) -> Examples | None:
        """The images that were held out, without augmentation; ``None`` if none were."""
        if self.unseen_images is None or self.unseen_labels is None:
            return None
        return self.examples(self.unseen_images, self.unseen_labels)

    def largest_input(self) -> float:
        """Largest value any normalised training pixel takes, over all channels."""
        top = self.train_images.amax(dim=(0, 2, 3)).cpu().double() / 255
        return float(((top - torch.tensor(self.mean)) / torch.tensor(self.std)).max())

    def test(self) -> Examples:
        """The test part, in order, without augmentation."""
        return self.examples(self.test_images, self.test_labels)

    def examples(self, images: Tensor, labels: Tensor, **reading: Any) -> Examples:
        """Images (N, C, H, W) of this data set, with their labels (N,), as :class:`ImageSource` reads them."""
        return Examples.all_of(ImageSource(images, self.mean, self.std, **reading), labels, len(self.classes))


def channel_statistics(images: Tensor, rows: Tensor | None = None) -> Statistics:
    """Mean and standard deviation per channel of uint8 images (N, C, H, W), or of some rows, in units of [0, 1].

    A constant channel gets standard deviation 1, so that it normalises to zero.
    """
    sums = PixelSums(images.shape[1])
    for part in torch.split(torch.arange(len(images)) if rows is None else rows, 1024):
        sums.add(images[part.to(images.device)])
    return sums.statistics()


class PixelSums:
    """Sums over uint8 images, exact whatever their order, for :func:`channel_statistics`."""

    def __init__(self, channels: int) -> None:
        self._count, self._sum, self._squares = 0, [0] * channels, [0] * channels

    def add(self, images: Tensor) -> None:
        """Count uint8 images (B, C, H, W)."""
        self._count += len(images) * images.shape[2] * images.shape[3]
        for channel, pixels in enumerate(images.unbind(1)):
            how_many = torch.bincount(pixels.flatten(), minlength=256).tolist()
            self._sum[channel] += sum(value * count for value, count in enumerate(how_many))
            self._squares[channel] += sum(value**2 * count for value, count in enumerate(how_many))

    def statistics(self) -> Statistics:
        """Mean and standard deviation per channel of what was counted."""
        n = self._count
        mean = tuple(total / (255 * n) for total in self._sum)
        spread = [n * square - total**2 for total, square in zip(self._sum, self._squares, strict=True)]
        return mean, tuple(math.sqrt(found) / (255 * n) if found else 1.0 for found in spread)
