"""The problem that an audit measures on: training data, forget positions and test data, without a task."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from expunge.data.examples import Examples
from expunge.errors import InvalidInput
from expunge.fingerprint import fingerprint
from expunge.metrics.base import Evaluated, NotDefined
from expunge.tasks.base import Problem, Split, Truth, check_forget


def audit_problem(
    train: Examples, forget: Tensor, test: Examples | None, true_labels: Tensor | None = None
) -> Problem:
    """Return the problem with its named sets.

    "test", "remaining_test" (without the classes that are forgotten whole), "forget_test" (test examples of
    these, if there are any), "forget" and "retain"; with ``true_labels`` also "corrupted_known" and
    "corrupted_unknown", the examples in and outside the forget set whose given label is wrong. The labels of
    "forget" and "retain" are the true ones where they are given, else the given ones.

    Args:
        train: the training examples with their given labels.
        forget: positions in ``train`` (integers, or a boolean mask), each once, not all of them.
        test: examples that no model was trained on; without them the problem has no set of test examples.
        true_labels: int64 (N,), of ``train``, negative where they are not known; there the given label counts
            as right.

    Raises:
        InvalidInput: positions that are empty, repeated, out of range or everything; no test example, other
            classes in ``test``, or not one true label for each example.
    """
    positions = check_forget(forget, len(train))
    if test is not None and (len(test) == 0 or test.n_classes != train.n_classes):
        raise InvalidInput(
            f"test examples of the {train.n_classes} classes of the training data are expected, got {len(test)} "
            f"of {test.n_classes} classes"
        )
    if true_labels is not None and true_labels.shape != train.labels.shape:
        raise InvalidInput(
            f"true_labels must be one for each of the {len(train)} training examples, got shape "
            f"{tuple(true_labels.shape)}"
        )
    split = Split(train, positions)
    true = train.relabel(completed(train, true_labels))
    sets = {"forget": true.select(positions), "retain": true.select(~split.forget_mask)}
    if test is not None:
        sets |= {"test": test, "remaining_test": test}
        if split.forget_classes:
            of_forgotten = torch.isin(test.labels, torch.tensor(split.forget_classes, device=test.device))
            sets |= {"remaining_test": test.select(~of_forgotten), "forget_test": test.select(of_forgotten)}
    wrong = (true.labels != train.labels).cpu()
    listed = split.forget_mask.cpu()
    known, unknown = (wrong & listed).nonzero().flatten(), (wrong & ~listed).nonzero().flatten()
    if true_labels is not None:
        sets |= {"corrupted_known": true.select(known), "corrupted_unknown": true.select(unknown)}
    truth = Truth(
        corrupted=wrong.nonzero().flatten(),
        known=known,
        unknown=unknown,
        true_labels=true.labels,
        stamped=torch.zeros(len(train), dtype=torch.bool, device=train.device),
        sets=sets,
    )
    training_key = fingerprint("audit", train.labels, train.index)
    # Not every input is an image; what reads the shape of one asks the inputs themselves.
    shape = cast(tuple[int, int, int], tuple(next(train.batches(1)).x.shape[1:]))
    return Problem(split, truth, shape, training_key, fingerprint(training_key, positions))


class Audited(Evaluated):
    """A model on an audit's problem, which may lack test examples."""

    def examples(self, name: str) -> Examples:
        """Examples of a named set.

        Raises:
            NotDefined: there is no such set, or it is empty.
        """
        if name in ("test", "remaining_test") and not self.has("test"):
            raise NotDefined("it needs examples that no model was trained on, which were not given")
        if name == "forget_test" and not self.has(name):
            raise NotDefined(
                "it looks at test examples of a class that is forgotten whole, and there are none"
            )
        return super().examples(name)


def completed(train: Examples, true_labels: Tensor | None) -> Tensor:
    """Return int64 (N,): the true labels of ``train`` where they are known (not negative), else the given ones."""
    if true_labels is None:
        return train.labels
    known = true_labels.to(train.device)
    return torch.where(known < 0, train.labels, known)
