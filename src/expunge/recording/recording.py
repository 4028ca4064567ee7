"""The record of a training: how often each example was predicted wrong, and by what margin."""

from __future__ import annotations

import reprlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from expunge.errors import DataError, InvalidInput, StoreError
from expunge.store.atomic import write_output

RECORDED = (
    "a recording ranks well and tells badly how many labels are wrong, since most were memorised in the end; five "
    "known rows set the cut, and the scores of all rows are there without them"
)
"""What is to be known of a list that was made from one."""


class Recording:
    """Record what a network predicts of each training example before it learns from it.

    Kept for each example i, over the times it was seen: the mean softmax p_i, the mean margin
    max over j != y_i of p_i[j], less p_i[y_i], and the number of wrong events [argmax p_i != y_i]. What was
    memorised late was predicted wrong early, which is why the mean says more than the trained network does.

    As a context it writes the file when the block ends, also where an error ends it:

        with Recording(labels, "recorded.safetensors") as recording:
            for index, x, y in loader:
                logits = model(x)
                recording.see(logits, index)
                ...

    Where a batch does not carry the positions of its examples, ``recording.follow(loader)`` takes them from the
    loader's sampler, and ``recording.see(logits)`` is enough. 'expunge find --recorded FILE' reads the file.

    Args:
        labels: (N,), the given labels: integers, in the order of the training set.
        path: of the file, .safetensors.

    Raises:
        InvalidInput: labels that are no integers of at least 0; another ending.

    Source: Pleiss et al., NeurIPS 2020 (area under the margin); Toneva et al., ICLR 2019 (forgetting events).
    """

    def __init__(self, labels: Sequence[int] | Tensor, path: Path | str) -> None:
        self.path = Path(path).expanduser()
        if self.path.suffix != ".safetensors":
            raise InvalidInput(f"a recording is a .safetensors file, got {self.path}")
        self.labels = _checked(labels)
        n = len(self.labels)
        self.seen, self.wrong, self.margin = torch.zeros(3, n).unbind()
        self.total = torch.zeros(0, 0)
        self._waiting: deque[int] = deque()
        self._followed: tuple[Any, Any] | None = None
        self._hook: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
        if bool(self.seen.any()):
            self.save()

    @torch.no_grad()
    def see(self, logits: Tensor, index: Sequence[int] | Tensor | None = None) -> None:
        """Take the logits (B, C) of a batch, as they are before its step.

        Args:
            logits: of the network in training mode.
            index: (B,), positions of the examples in the training set; by default the next ones of the followed
                loader.

        Raises:
            InvalidInput: logits of another shape; positions outside the training set; nobody says which examples.
        """
        if logits.ndim != 2:
            raise InvalidInput(f"logits of shape (B, C) are expected, got {tuple(logits.shape)}")
        i = self._next(len(logits)) if index is None else torch.as_tensor(index).long().cpu()
        if i.shape != (len(logits),) or bool(((i < 0) | (i >= len(self.labels))).any()):
            raise InvalidInput(
                f"index names {len(logits)} positions in [0, {len(self.labels)}), got {reprlib.repr(i.tolist())}"
            )
        y = self.labels[i]
        if int(y.max()) >= logits.shape[1]:
            raise InvalidInput(f"label {int(y.max())} has no logit: there are {logits.shape[1]}")
        p = logits.detach().float().softmax(1).cpu()
        if self.total.numel() == 0:
            self.total = torch.zeros(len(self.labels), p.shape[1])
        margin = p.scatter(1, y[:, None], 0.0).amax(1) - p.gather(1, y[:, None]).squeeze(1)
        # an example may stand in a batch twice
        self.total.index_add_(0, i, p)
        self.margin.index_add_(0, i, margin)
        self.wrong.index_add_(0, i, (margin > 0).float())
        self.seen.index_add_(0, i, torch.ones(len(i)))

    def follow(self, loader: Any) -> None:
        """Take the positions of the examples from the sampler of ``loader``, which stays as it is otherwise.

        Raises:
            InvalidInput: a loader without a sampler, or over another number of examples.
        """
        batches: Any = getattr(loader, "batch_sampler", None)
        sampler = getattr(batches, "sampler", None)
        if batches is None or sampler is None or not hasattr(loader.dataset, "__len__"):
            raise InvalidInput(
                f"{type(loader).__name__} has no batch sampler over single examples (an iterable data set has none); "
                "give the positions with each batch: see(logits, index)"
            )
        count = len(loader.dataset)
        if count != len(self.labels):
            raise InvalidInput(f"the loader reads {count} examples and {len(self.labels)} labels were given")
        self.release()
        self._followed = (batches, sampler)
        batches.sampler = _Told(sampler, self._waiting)

    def watch(
        self, network: nn.Module, loader: Any, processes: int, logits: Callable[[Any], Tensor | None]
    ) -> None:
        """Follow ``loader`` and see each output of ``network`` in training of which ``logits`` makes some.

        Raises:
            InvalidInput: several processes; a loader as in :meth:`follow`.
        """
        if processes > 1:
            raise InvalidInput(
                f"a recording is made in one process, and there are {processes}; leave the callback out"
            )
        self.follow(loader)

        def see(model: nn.Module, inputs: Any, output: Any) -> None:
            if model.training and torch.is_grad_enabled() and (found := logits(output)) is not None:
                self.see(found)

        self._hook = network.register_forward_hook(see)

    def release(self) -> None:
        """Give the followed loader its sampler back, and let go of the network that is watched."""
        if self._hook is not None:
            self._hook.remove()
            self._hook = None
        if self._followed is not None:
            batches, sampler = self._followed
            batches.sampler = sampler
            self._followed = None

    def _next(self, count: int) -> Tensor:
        if len(self._waiting) < count:
            raise InvalidInput(
                "which examples these logits are of is not known; call follow(loader) before the first epoch, or give "
                "the positions: see(logits, index)"
            )
        return torch.tensor([self._waiting.popleft() for _ in range(count)])

    def save(self) -> None:
        """Write the file; it is whole or as it was.

        Raises:
            StoreError: it cannot be written.
        """
        content = {
            "labels": self.labels,
            "seen": self.seen,
            "wrong": self.wrong,
            "margin": self.margin / self.seen.clamp(min=1),
            "probabilities": (self.total / self.seen.clamp(min=1)[:, None]).half(),
        }
        write_output(self.path, save(content, {"expunge": "recording 1"}), remedy="name another file")


class _Told:
    """A sampler that tells which positions it hands out."""

    def __init__(self, sampler: Any, told: deque[int]) -> None:
        self._sampler, self._told = sampler, told

    def __iter__(self) -> Iterator[int]:
        self._told.clear()  # the last examples of an epoch may have made no batch
        for position in self._sampler:
            self._told.append(int(position))
            yield position

    def __len__(self) -> int:
        return len(self._sampler)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sampler, name)  # set_epoch and the like


def _checked(labels: Sequence[int] | Tensor) -> Tensor:
    with suppress(TypeError, ValueError, RuntimeError):
        found = torch.as_tensor(labels).cpu()
        if found.ndim == 1 and len(found) and not found.is_floating_point() and int(found.min()) >= 0:
            return found.long()
    raise InvalidInput(f"labels are integers of at least 0, one for each example, got {reprlib.repr(labels)}")


def read_recording(path: Path, labels: Tensor, n_classes: int) -> dict[str, Tensor]:
    """Return what was recorded of the examples with these given ``labels`` (N,), by name; see :class:`Recording`.

    Raises:
        StoreError: the file is missing or no recording.
        DataError: it was made for other labels, another number of classes, or does not know every example.
    """
    try:
        found = load_file(path)
        probabilities, seen = found["probabilities"].float(), found["seen"]
        theirs = found["labels"]
    except (OSError, SafetensorError, KeyError) as error:
        raise StoreError(
            f"{path} is no recording of a training: {error}; expunge.Recording writes one"
        ) from error
    if len(theirs) != len(labels) or bool((theirs != labels.cpu()).any()):
        differ = "" if len(theirs) != len(labels) else f", {int((theirs != labels.cpu()).sum())} differ"
        raise DataError(
            f"{path} was recorded of {len(theirs)} examples with other labels than the {len(labels)} of the "
            f"data{differ}; give the data of that training, in the same order"
        )
    if probabilities.shape[1] != n_classes:
        raise DataError(f"{path} knows {probabilities.shape[1]} classes and the data has {n_classes}")
    if bool((seen == 0).any()):
        raise DataError(
            f"{path}: {int((seen == 0).sum())} examples were never seen; record an epoch over all of them"
        )
    return found | {"probabilities": probabilities}
