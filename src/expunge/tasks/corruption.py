"""The map of corrupted-data tasks: discovery rate by statistical regularity."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from expunge.data.images import ImageData, Stamp
from expunge.errors import InvalidInput
from expunge.fingerprint import fingerprint
from expunge.seeding import generator
from expunge.settings import NAMED
from expunge.tasks.base import Problem, Split, Task, Truth, check_forget
from expunge.tasks.regularity import regularity_value


@dataclass(frozen=True, kw_only=True)
class CorruptionTask(Task):
    """Wrong labels and poisoned images, of which only a part has been discovered.

    Three corruptions, from independent errors to one shared rule:

    * 0.0 ``random``: uniformly drawn images get a uniformly drawn other label.
    * 0.5 ``interclass``: images of class a get label b, as many of class b get label a.
    * 1.0 ``poison``: images get the trigger in their bottom-right corner and the target label.

    A value between two points mixes them: at r in [0, 0.5] a share 2r of the corrupted images is swapped
    and the rest is random; at r in [0.5, 1] a share 2r - 1 is poisoned and the rest is swapped.

    Args:
        regularity: r in [0, 1].
        discovery: share of the corrupted images that is known, in (0, 1]; at least one image. The sets
            of lower rates are parts of those of higher ones.
        n_corrupted: number of corrupted images, M.
        seed: of the corruption and the discovery.
        swap_classes: the classes (a, b).
        target_class: the poison's label; its own images are not poisoned.
        patch: side of the trigger, in pixels. Its value is the largest of all normalised training pixels.
        mislisted: share of the forget list that is clean, in [0, 1): images named by mistake, beside all that are
            known. No evaluation set holds them.

    Raises:
        InvalidInput: a value outside its range.

    Source: Schoepf et al., arXiv 2505.17730, section on the task space; Goel et al., 2024.

    Departures: every corrupted label differs from the true one (the published poison includes images of
    the target class); all draws follow the seed (published: the class swap takes the first images).
    """

    kind = "corruption"
    on_map = True
    corrupts = True
    forgets_to_chance = True

    regularity: float = field(default=0.0, metadata={NAMED: True})
    discovery: float = 1.0
    n_corrupted: int = 1000
    swap_classes: tuple[int, int] = (3, 5)
    target_class: int = 0
    patch: int = 3
    mislisted: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "regularity", regularity_value(self.regularity))
        # 1 and 1.0 are one setting, and are to have one key
        object.__setattr__(self, "discovery", float(self.discovery))
        object.__setattr__(self, "swap_classes", tuple(self.swap_classes))
        if not 0 < self.discovery <= 1:
            raise InvalidInput(
                f"the discovery rate is the share of corrupted examples that is known and must lie in (0, 1], "
                f"got {self.discovery}"
            )
        if self.n_corrupted < 1:
            raise InvalidInput(f"n_corrupted must be at least 1, got {self.n_corrupted}")
        if len(set(self.swap_classes)) != 2:
            raise InvalidInput(f"swap_classes must be two different classes, got {self.swap_classes}")
        if not 0 <= self.mislisted < 1:
            raise InvalidInput(
                f"mislisted is the share of the forget list that is clean and must lie in [0, 1), got {self.mislisted}"
            )
        if self.patch < 1:
            raise InvalidInput(f"the trigger patch must have at least one pixel, got {self.patch}")

    def n_mislisted(self) -> int:
        """Number of clean images on the forget list."""
        return round(self._n_known(self.n_corrupted) * self.mislisted / (1 - self.mislisted))

    def _n_known(self, n_corrupted: int) -> int:
        return max(1, math.ceil(self.discovery * n_corrupted - 1e-9))

    def counts(self) -> tuple[int, int, int]:
        """Number of (randomly labelled, swapped, poisoned) images."""
        position = 2 * self.regularity
        if position <= 1:
            swapped = round(self.n_corrupted * position)
            return self.n_corrupted - swapped, swapped, 0
        poisoned = round(self.n_corrupted * (position - 1))
        return 0, self.n_corrupted - poisoned, poisoned

    def check(self, data: ImageData) -> None:
        """Raise :class:`InvalidInput` unless the task can be carried out on ``data``."""
        n_random, n_swap, n_poison = self.counts()
        total, n_classes = len(data.train_labels), len(data.classes)
        if self.n_corrupted >= total:
            raise InvalidInput(
                f"{self.n_corrupted} corrupted images were asked for, but {data.name} has {total}; lower n_corrupted"
            )
        clean = total - self.n_corrupted
        if self.n_mislisted() >= clean:
            raise InvalidInput(
                f"{self.n_mislisted()} clean images are to be on the forget list, but {data.name} has {clean}; lower "
                "mislisted, or n_corrupted"
            )
        used = [*(self.swap_classes if n_swap else ()), *([self.target_class] if n_poison else [])]
        for label in used:
            if not 0 <= label < n_classes:
                raise InvalidInput(
                    f"class {label} does not exist: {data.name} has classes 0..{n_classes - 1}"
                )
        if n_random and n_classes < 2:
            raise InvalidInput("a wrong label needs at least two classes")
        if n_swap:
            for label, needed in zip(self.swap_classes, self._swap_counts(n_swap), strict=True):
                there = int((data.train_labels == label).sum())
                if needed > there:
                    raise InvalidInput(
                        f"the interclass swap needs {needed} images of class {label}, but {data.name} has "
                        f"{there}; lower n_corrupted or name other swap_classes"
                    )
        if n_poison:
            there = int((data.train_labels != self.target_class).sum()) - n_swap
            if n_poison > there:
                raise InvalidInput(
                    f"{n_poison} images are to be poisoned, but only {there} are free to be; lower n_corrupted"
                )
            if self.patch > min(data.shape[1:]):
                raise InvalidInput(
                    f"the trigger of {self.patch} pixels is larger than the image {data.shape[1:]}"
                )

    @staticmethod
    def _swap_counts(n_swap: int) -> tuple[int, int]:
        return n_swap - n_swap // 2, n_swap // 2

    def build(self, data: ImageData, difficulty: Tensor | None = None) -> Problem:
        """Corrupt ``data`` and split what is known from what is true; ``difficulty`` is not used.

        Raises:
            InvalidInput: the data set cannot carry the task, for example too few images of a class.
        """
        self.check(data)
        _, n_swap, n_poison = self.counts()
        true = data.train_labels.cpu()
        labels, stamped = self._corrupt(data)
        changed = labels != true
        corrupted, clean = changed.nonzero().flatten(), (~changed).nonzero().flatten()
        order = torch.randperm(len(corrupted), generator=generator(self.seed, "discovery"))
        n_known = self._n_known(len(corrupted))
        known = check_forget(corrupted[order[:n_known]], len(true))
        unknown = corrupted[order[n_known:]].sort().values
        named = torch.randperm(len(clean), generator=generator(self.seed, "mislisted"))[: self.n_mislisted()]
        listed = torch.cat([known, clean[named]]).sort().values

        stamp = Stamp(self.patch, data.largest_input()) if n_poison else None
        train = data.examples(
            data.train_images, labels, augmentation=data.augmentation, stamp=stamp, stamped=stamped
        )
        corrected, test = train.relabel(data.train_labels), data.test()
        sets = {
            "test": test,
            "corrupted_known": corrected.select(known),
            "corrupted_unknown": corrected.select(unknown),
        }
        if stamp is not None:
            everywhere = torch.ones(len(test), dtype=torch.bool, device=test.device)
            sets["triggered_test"] = data.examples(
                data.test_images, data.test_labels, stamp=stamp, stamped=everywhere
            )
        if n_swap:
            touched = torch.isin(test.labels, torch.tensor(self.swap_classes, device=test.device))
            sets |= {"swapped_classes": test.select(touched), "other_classes": test.select(~touched)}
        truth = Truth(
            corrupted=corrupted,
            known=known,
            unknown=unknown,
            true_labels=data.train_labels,
            stamped=stamped,
            sets=sets,
            target_class=self.target_class if n_poison else None,
            swapped=self.swap_classes if n_swap else (),
        )
        training_key = fingerprint(
            data.content, data.mean, data.std, data.augmentation, labels, stamped, stamp, self.seed
        )
        settings = dataclasses.asdict(self)
        if not self.mislisted:
            del settings["mislisted"]  # the keys of tasks that were stored before there was such a setting
        key = fingerprint(training_key, known, settings)
        split = Split(train, listed, data.unseen())
        return Problem(split, truth, data.shape, training_key, key)

    def _corrupt(self, data: ImageData) -> tuple[Tensor, Tensor]:
        """Return the labels (N,) and the mask (N,) of stamped images; every corrupted label differs from the true."""
        n_random, n_swap, n_poison = self.counts()
        true = data.train_labels.cpu()
        draw = generator(self.seed, "corruption", self.regularity, self.n_corrupted)
        labels, free = true.clone(), torch.ones(len(true), dtype=torch.bool)
        stamped = torch.zeros(len(true), dtype=torch.bool)

        def take(count: int, eligible: Tensor) -> Tensor:
            candidates = (eligible & free).nonzero().flatten()
            chosen = candidates[torch.randperm(len(candidates), generator=draw)[:count]]
            free[chosen] = False
            return chosen

        first, second = self.swap_classes
        to_second, to_first = self._swap_counts(n_swap)
        labels[take(to_second, true == first)] = second
        labels[take(to_first, true == second)] = first
        poisoned = take(n_poison, true != self.target_class)
        labels[poisoned] = self.target_class
        stamped[poisoned] = True
        chosen = take(n_random, torch.ones_like(free))
        shift = torch.randint(1, max(2, len(data.classes)), (len(chosen),), generator=draw)
        labels[chosen] = (true[chosen] + shift) % len(data.classes)
        return labels, stamped.to(data.train_images.device)
