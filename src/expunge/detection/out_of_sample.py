"""Class probabilities of every training example from models that were not trained on it."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from expunge.data.examples import Examples
from expunge.errors import Diverged, InvalidInput
from expunge.fingerprint import fingerprint
from expunge.seeding import derive_seed, generator
from expunge.store.weights import WeightStore
from expunge.training.cost import Meter
from expunge.training.initialisation import fresh_copy
from expunge.training.loop import Progress, predict, silent
from expunge.training.numerics import Numerics
from expunge.training.recipe import Optimiser, Recipe

FreshModel = Callable[[torch.Generator], nn.Module]
"""Makes an untrained model whose parameters follow from the generator."""

_FEWEST_EPOCHS, _FEWEST_STEPS = 15, 600


def short_training(
    n_examples: int,
    *,
    epochs: int | None = None,
    batch_size: int = 64,
    lr: float = 1e-3,
    augment: bool = False,
) -> Recipe:
    """Return a training that suits most networks without tuning: AdamW on a cosine.

    Args:
        n_examples: that each model is trained on.
        epochs: passes over them; by default 15, or as many as make 600 steps.
        batch_size: examples a step.
        lr: largest learning rate.
        augment: train on augmented inputs.

    Raises:
        InvalidInput: a value outside its range.
    """
    if batch_size < 1:
        raise InvalidInput(f"the batch size must be at least 1, got {batch_size}")
    enough = math.ceil(_FEWEST_STEPS / max(1, math.ceil(n_examples / batch_size)))
    return Recipe(
        epochs=max(_FEWEST_EPOCHS, enough) if epochs is None else epochs,
        batch_size=batch_size,
        optimiser=Optimiser(name="adamw", lr=lr, weight_decay=1e-2),
        schedule="cosine",
        augment=augment,
    )


def fresh_copies(model: nn.Module) -> FreshModel:
    """Return a maker of untrained copies of ``model``, which stays untouched.

    Frozen parameters are trained in the copies, because they are drawn anew too.

    Raises:
        InvalidInput: when called, if a module owns parameters and cannot reset them.
    """

    def make(source: torch.Generator) -> nn.Module:
        return fresh_copy(model, source).requires_grad_(True)

    return make


def out_of_sample(
    fresh: FreshModel,
    examples: Examples,
    numerics: Numerics,
    *,
    recipe: Recipe | None = None,
    folds: int = 5,
    seed: int = 0,
    kept: WeightStore | None = None,
    key: str = "",
    progress: Progress = silent,
) -> Tensor:
    """Train one model per fold on the other folds, and return float64 (N, n_classes): probabilities.

    p_i = softmax(f_{theta(-k)}(x_i)),  i in fold k,  theta(-k) trained on all folds but k.

    Args:
        fresh: makes an untrained model, such as ``fresh_copies(model)``.
        examples: with their given labels, on the device of ``numerics``.
        numerics: where and how to compute.
        recipe: how each model is trained, by default ``short_training``; its ``model`` is not looked at.
        folds: k, at least 2; the cost is k - 1 trainings on all examples.
        seed: of folds, initialisation and order.
        kept: keeps the probabilities of each finished fold, for a call that goes on after an interruption.
        key: what the model and the inputs are, as a text; the finished folds of another key are not taken.
        progress: called with the share of the work that is done.

    Raises:
        InvalidInput: too few examples of a class, one class only, or examples on another device.
        Diverged: a training became NaN; the message names the fold.
        StoreError: a kept fold cannot be read or written.
    """
    if examples.device.type != torch.device(numerics.device).type:
        raise InvalidInput(
            f"the examples are on {examples.device} but the work is on {numerics.device}; load them there"
        )
    fold = stratified_folds(examples.labels, folds, seed)
    recipe = recipe or short_training(len(examples) - len(examples) // folds)
    found = torch.empty(len(examples), examples.n_classes, dtype=torch.float64)
    settings = fingerprint(key, recipe, folds, seed, numerics, examples.labels, examples.index)
    for number in range(folds):
        held_out = fold == number
        name = fingerprint(settings, number)
        if kept is not None and kept.has(name):
            found[held_out] = kept.load(name)["probabilities"]
            progress((number + 1) / folds)
            continue
        try:
            probabilities = _of_fold(
                fresh,
                examples.select(~held_out),
                examples.select(held_out),
                numerics,
                recipe,
                derive_seed(seed, "fold", number),
                lambda share, done=number: progress((done + share) / folds),  # type: ignore[misc]
            )
        except Diverged as error:
            raise Diverged(f"fold {number + 1} of {folds}: {error}") from error
        if kept is not None:
            kept.save(name, {"probabilities": probabilities}, {"fold": f"{number + 1} of {folds}"})
        found[held_out] = probabilities
    return found


def _of_fold(
    fresh: FreshModel,
    known: Examples,
    asked: Examples,
    numerics: Numerics,
    recipe: Recipe,
    seed: int,
    progress: Progress,
) -> Tensor:
    model = fresh(generator(seed, "initialisation"))
    with Meter(numerics.device) as meter:
        recipe.train(model, known, seed, numerics, meter, progress)
    probabilities = predict(model, asked, numerics).double().softmax(1).cpu()
    if not bool(probabilities.isfinite().all()):
        raise Diverged("the trained model gives NaN; lower the learning rate")
    return probabilities


def in_large_classes(labels: Tensor, folds: int) -> Tensor:
    """Return bool (N,), on the CPU: the examples of classes with one for each of ``folds`` at least.

    All of them where fewer than two such classes remain: :func:`stratified_folds` then says what is wrong.
    """
    labels = labels.cpu()
    large = torch.bincount(labels) >= folds
    return large[labels] if int(large.sum()) > 1 else torch.ones(len(labels), dtype=torch.bool)


def stratified_folds(labels: Tensor, folds: int, seed: int) -> Tensor:
    """Return int64 (N,), on the CPU: the fold of each example, from 0.

    The numbers of examples of a class in two folds differ by one at most, and so do the folds' sizes.

    Args:
        labels: int64 (N,).
        folds: at least 2.
        seed: of the draw within each class.

    Raises:
        InvalidInput: fewer than two folds, labels of one class only, or a class with fewer examples than folds.
    """
    if folds < 2:
        raise InvalidInput(f"cross-validation needs at least 2 folds, got {folds}")
    labels = labels.cpu()
    classes, counts = torch.unique(labels, return_counts=True)
    if len(classes) < 2:
        raise InvalidInput(
            f"all {len(labels)} labels are of one class; label errors can be told among two classes at least"
        )
    small = counts < folds
    if bool(small.any()):
        first = int(small.nonzero()[0])
        least = int(counts.min())
        remedy = f"choose {least} folds, or " if least >= 2 else ""
        raise InvalidInput(
            f"{folds} folds need {folds} examples of each class, but class {int(classes[first])} has "
            f"{int(counts[first])} ({int(small.sum())} classes have too few); {remedy}take the rows of such classes out"
        )
    order = torch.randperm(len(labels), generator=generator(seed, "folds"))
    by_class = order[torch.sort(labels[order], stable=True).indices]
    fold = torch.empty(len(labels), dtype=torch.int64)
    # Dealt out class after class, so that one class's remainder is made up for by the next.
    fold[by_class] = torch.arange(len(labels)) % folds
    return fold
