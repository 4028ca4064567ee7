"""Tasks that forget good data: classes, sub-classes, random or hard samples, named indices."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from expunge.data.images import ImageData
from expunge.errors import InvalidInput
from expunge.fingerprint import fingerprint
from expunge.seeding import generator
from expunge.tasks.base import Problem, Split, Task, Truth, check_forget


@dataclass(frozen=True, kw_only=True)
class ForgetTask(Task):
    """Training examples with right labels that are to be forgotten.

    Named evaluation sets, all with true labels and without augmentation: "test" (the whole test set), "remaining_test"
    (test images outside the forgotten concept; for samples the whole test set), "forget_test" (test images of the
    concept; classes and sub-classes only), "siblings_test" (sub-classes only: test images of the
    other sub-classes under the same label), "forget" and "retain" (training images).

    Args:
        seed: of what is drawn at random.
    """

    @abstractmethod
    def choose(self, data: ImageData, difficulty: Tensor | None) -> Tensor:
        """Return the positions of the forget set among the training images."""

    def check(self, data: ImageData) -> None:
        """Raise :class:`InvalidInput` unless the task can be carried out on ``data``."""
        if not self.needs_difficulty:
            check_forget(self.choose(data, None), len(data.train_labels))

    def build(self, data: ImageData, difficulty: Tensor | None = None) -> Problem:
        """Name the forget set and the evaluation sets; only the hardest samples need ``difficulty``.

        Raises:
            InvalidInput: the data set cannot carry the task, or ``difficulty`` is needed and missing.
        """
        if self.needs_difficulty and difficulty is None:
            raise InvalidInput(
                f"the task {self.kind!r} needs the mean training loss of every example, recorded while the "
                "original model was trained; pass difficulty"
            )
        positions = check_forget(self.choose(data, difficulty), len(data.train_labels))
        train = data.examples(data.train_images, data.train_labels, augmentation=data.augmentation)
        split = Split(train, positions, data.unseen())
        test = data.test()
        sets = {"test": test, "forget": split.forget, "retain": split.retain, "remaining_test": test}
        masks = self.concept(data)
        if masks is not None:
            concept, siblings = masks
            sets["remaining_test"] = test.select(~concept)
            sets["forget_test"] = test.select(concept)
            if bool(siblings.any()):
                sets["siblings_test"] = test.select(siblings)
        truth = Truth(
            true_labels=data.train_labels,
            stamped=torch.zeros(len(train), dtype=torch.bool, device=train.device),
            sets=sets,
        )
        training_key = fingerprint(data.content, data.mean, data.std, data.augmentation, self.seed)
        # The hardest follow from the model trained, whose key is part of every cell's key.
        key = fingerprint(training_key, self.kind, dataclasses.asdict(self))
        return Problem(split, truth, data.shape, training_key, key)


@dataclass(frozen=True, kw_only=True)
class ForgetClasses(ForgetTask):
    """Forget every training image of some classes.

    Args:
        seed: of the training.
        classes: their labels; at least one class must remain.
    """

    kind = "classes"
    forgets_to_chance = True

    classes: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(sorted(set(self.classes))))
        if not self.classes:
            raise InvalidInput("classes is empty: name at least one class to forget")

    def choose(self, data: ImageData, difficulty: Tensor | None) -> Tensor:
        """Return every image of the classes."""
        missing = [label for label in self.classes if not 0 <= label < len(data.classes)]
        if missing:
            raise InvalidInput(
                f"class {missing[0]} does not exist: {data.name} has classes 0..{len(data.classes) - 1}"
            )
        return self._of_classes(data.train_labels).nonzero().flatten()

    def concept(self, data: ImageData) -> tuple[Tensor, Tensor]:
        """The test images of the classes; no siblings."""
        mask = self._of_classes(data.test_labels)
        return mask, torch.zeros_like(mask)

    def _of_classes(self, labels: Tensor) -> Tensor:
        return torch.isin(labels, torch.tensor(self.classes, device=labels.device))


@dataclass(frozen=True, kw_only=True)
class ForgetSubclass(ForgetTask):
    """Forget one fine class that shares its label with others (CIFAR-20).

    Args:
        seed: of the training.
        fine: the fine label.
    """

    kind = "subclass"

    fine: int = 0

    def choose(self, data: ImageData, difficulty: Tensor | None) -> Tensor:
        """Return every training image of the fine class."""
        fine, _ = self._fine(data)
        chosen = (fine == self.fine).nonzero().flatten()
        if len(chosen) == 0:
            raise InvalidInput(f"no training image of {data.name} has the fine label {self.fine}")
        return chosen

    def concept(self, data: ImageData) -> tuple[Tensor, Tensor]:
        """The test images of the fine class, and those of its siblings."""
        train_fine, test_fine = self._fine(data)
        label = data.train_labels[(train_fine == self.fine).nonzero()[0]]
        mask = test_fine == self.fine
        return mask, (data.test_labels == label) & ~mask

    @staticmethod
    def _fine(data: ImageData) -> tuple[Tensor, Tensor]:
        if data.train_fine is None or data.test_fine is None:
            raise InvalidInput(
                f"{data.name} has no fine labels, so it has no sub-classes; use a data set that has some (cifar20)"
            )
        return data.train_fine, data.test_fine


@dataclass(frozen=True, kw_only=True)
class _ForgetShare(ForgetTask):
    """Forget a share of the training images."""

    share: float = 0.01

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise InvalidInput(f"the share to forget must lie in (0, 1), got {self.share}")


@dataclass(frozen=True, kw_only=True)
class ForgetRandom(_ForgetShare):
    """Forget the same share of every class, drawn at random.

    From each class the first floor(share N / C) of its shuffled images, at least one (classes with fewer
    images give what they have).

    Args:
        seed: of the draw.
        share: of the training images, in (0, 1).
    """

    kind = "random"

    def choose(self, data: ImageData, difficulty: Tensor | None) -> Tensor:
        """Return a class-stratified draw."""
        labels = data.train_labels.cpu()
        source = generator(self.seed, "forget random")
        each = max(1, int(self.share * len(labels) / len(data.classes) + 1e-9))
        parts = []
        for label in range(len(data.classes)):
            members = (labels == label).nonzero().flatten()
            parts.append(members[torch.randperm(len(members), generator=source)[:each]])
        return torch.cat(parts)


@dataclass(frozen=True, kw_only=True)
class ForgetHardest(_ForgetShare):
    """Forget the samples that were hardest to learn: those of the highest mean loss over the training.

    Args:
        seed: of the training.
        share: of the training images, in (0, 1), over all classes together.
    """

    kind = "hardest"
    needs_difficulty = True

    def choose(self, data: ImageData, difficulty: Tensor | None) -> Tensor:
        """Return the positions of the highest ``difficulty``."""
        assert difficulty is not None
        if len(difficulty) != len(data.train_labels):
            raise InvalidInput(
                f"difficulty must have one value for each of the {len(data.train_labels)} training images, "
                f"got {len(difficulty)}"
            )
        count = max(1, int(self.share * len(difficulty) + 1e-9))
        return difficulty.cpu().argsort(descending=True, stable=True)[:count]


@dataclass(frozen=True, kw_only=True)
class ForgetIndices(ForgetTask):
    """Forget the training images at given positions.

    Args:
        seed: of the training.
        indices: positions in the training set, each once, not all of them.
    """

    kind = "indices"

    indices: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "indices", tuple(self.indices))

    def choose(self, data: ImageData, difficulty: Tensor | None) -> Tensor:
        """Return the indices."""
        return torch.tensor(self.indices, dtype=torch.int64)

    def renumbered(self, kept: Tensor) -> ForgetIndices:
        """Return the indices counted among the images that are left; the others drop out.

        Raises:
            InvalidInput: none is left.
        """
        place = {position: number for number, position in enumerate(kept.tolist())}
        left = tuple(place[index] for index in self.indices if index in place)
        if not left:
            raise InvalidInput(
                f"all {len(self.indices)} indices to be forgotten are among the validation images held out; name more "
                "of them, or hold out fewer images with n_unseen in [data]"
            )
        return dataclasses.replace(self, indices=left)
