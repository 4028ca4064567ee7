"""The models that an unlearned one is held against, trained and kept: retrained twice, and an oracle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from expunge.data.examples import Examples
from expunge.errors import Diverged, InvalidInput
from expunge.evaluation.problem import completed
from expunge.fingerprint import fingerprint
from expunge.seeding import derive_seed, generator
from expunge.store.weights import WeightStore
from expunge.tasks.base import Split, check_forget
from expunge.training.cost import Meter
from expunge.training.loop import Progress, silent
from expunge.training.numerics import Numerics
from expunge.training.recipe import Recipe

RETRAINED, SECOND, ORACLE = "retrained", "second_retrained", "oracle"
"""Roles: trained on the retain set, the same with another seed, and on everything with the true labels."""


def train_reference(
    model: nn.Module,
    examples: Examples,
    recipe: Recipe,
    seed: int,
    numerics: Numerics,
    role: str,
    progress: Progress = silent,
) -> float:
    """Train ``model``, drawn anew, in place on what its role lets it see; return the seconds that took.

    No batch of a single example is among the steps. ``seed``: of the order.

    Raises:
        Diverged: the training led to NaN; the message names the role.
    """
    try:
        with Meter(numerics.device) as meter:
            recipe.train(model, examples, seed, numerics, meter, progress)
    except Diverged as error:
        raise Diverged(f"the {role.replace('_', ' ')} model: {error}") from error
    return meter.seconds


_DATA, _FORGET = "expunge.data", "expunge.forget"


@dataclass(frozen=True)
class References:
    """The models.

    Args:
        models: "retrained", "second_retrained" and, with true labels, "oracle" -> the model, in evaluation mode.
        seconds: role -> wall time of its training, now or when it was kept.
        trained: roles that were trained by this call; the others were kept.
    """

    models: Mapping[str, nn.Module]
    seconds: Mapping[str, float]
    trained: tuple[str, ...]


def train_references(
    fresh: Callable[[torch.Generator], nn.Module],
    train: Examples,
    forget: Tensor,
    *,
    recipe: Recipe,
    numerics: Numerics,
    kept: WeightStore,
    architecture: str,
    data: str,
    true_labels: Tensor | None = None,
    second: bool = True,
    seed: int = 0,
    progress: Progress = silent,
) -> References:
    """Train what is not kept yet, and return all of it.

    The two retrained models see the retain set and differ by their seed; the oracle sees everything, with
    the true labels. Each is kept as soon as it is finished.

    Args:
        fresh: makes an untrained model whose parameters follow from the generator.
        train: the training examples with their given labels.
        forget: positions in ``train``.
        recipe: how the original was trained, as far as that is known; its ``model`` is not looked at.
        numerics: where to compute.
        kept: where the weights are kept, under content hashes.
        architecture: what ``fresh`` makes, as a text; the kept weights of another text are not taken.
        data: hash of the training data; the same.
        true_labels: int64 (N,), of ``train``, negative where they are not known; without them there is no oracle.
        second: train the second retrained model, for the noise floor.
        seed: of initialisation and order.
        progress: called with the share of the work that is done.

    Raises:
        InvalidInput: positions that do not fit, or a module that cannot be drawn anew.
        Diverged: a training became NaN; the message names the model.
        StoreError: the weights cannot be read or written.
    """
    positions = check_forget(forget, len(train))
    retain = Split(train, positions).retain
    wanted = {RETRAINED: retain} | ({SECOND: retain} if second else {})
    if true_labels is not None:
        wanted[ORACLE] = train.relabel(completed(train, true_labels))
    models: dict[str, nn.Module] = {}
    seconds: dict[str, float] = {}
    trained = []
    for number, (role, examples) in enumerate(wanted.items()):
        own_seed = derive_seed(seed, "reference", role)
        name = fingerprint(
            "audit reference",
            architecture,
            data,
            recipe,
            own_seed,
            numerics.dtype,
            examples.index,
            examples.labels,
        )
        model = fresh(generator(own_seed, "initialisation"))
        if kept.has(name):
            model.load_state_dict(kept.load(name))
            seconds[role] = float(kept.metadata(name)["seconds"])
        else:
            seconds[role] = train_reference(
                model, examples, recipe, own_seed, numerics, role,
                lambda share, done=number: progress((done + share) / len(wanted)),  # type: ignore[misc]
            )  # fmt: skip
            about = made_from(data, positions) | {"role": role, "seconds": f"{seconds[role]:.3f}"}
            kept.save(name, model.state_dict(), about)
            trained.append(role)
        models[role] = numerics.place(model).eval()
        progress((number + 1) / len(wanted))
    return References(models, seconds, tuple(trained))


def made_from(data: str, positions: Tensor) -> dict[str, str]:
    """Return the metadata that says what a reference was made from, to be stored beside its weights.

    ``data``: hash of the training data; ``positions``: the forget set, which it was trained without.
    """
    return {_DATA: data, _FORGET: fingerprint(positions.cpu().to(torch.int64))}


def check_made_from(metadata: Mapping[str, str], data: str, positions: Tensor, name: str) -> None:
    """Refuse a reference whose stored metadata says that it was trained on other data, or without other examples.

    Metadata that says nothing is let pass: files of other programs have none.

    Raises:
        InvalidInput: one of the two differs.
    """
    expected = made_from(data, positions)
    what = {_DATA: "other training data", _FORGET: "another forget set"}
    for entry, meaning in what.items():
        if entry in metadata and metadata[entry] != expected[entry]:
            raise InvalidInput(
                f"{name} was made for {meaning}: its {entry} is {metadata[entry]}, that of this audit "
                f"{expected[entry]}; give the model that was retrained on this data without this list, or let "
                "--train-reference make one"
            )
