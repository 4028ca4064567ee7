"""The call for one's own model and data."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from expunge.choice import (
    Choice,
    Purpose,
    Situation,
    choose,
    fine_tuned,
    loosened,
    purpose_settings,
    starting_settings,
)
from expunge.data.examples import Examples, check_not_empty
from expunge.data.mapped import MappedSource, as_pairs, check_input, examples_from_dataset, numbered_labels
from expunge.data.reader import Reader
from expunge.errors import InvalidInput, UnknownName
from expunge.methods.base import Method, Needs, Request
from expunge.methods.relearn import Relearn
from expunge.methods.relearning import usual_share
from expunge.registry import METHODS
from expunge.result import Result
from expunge.tasks.base import Split, check_forget
from expunge.training.initialisation import matching
from expunge.training.logits import check_logits
from expunge.training.loop import Progress, silent
from expunge.training.numerics import Devices, Numerics
from expunge.training.recipe import Recipe


def load_method(name: str, **settings: Any) -> Method:
    """Return a method by name or ``"package.module:Class"`` path, with some of its settings replaced.

    Raises:
        UnknownName: no such method, or no such setting.
        InvalidInput: the path leads to something that is not a method.
    """
    kind: type[Method] = METHODS.get(name)
    return kind.configured(settings)


def unlearn(
    model: nn.Module,
    train_set: Any,
    *,
    forget: Iterable[int] | torch.Tensor,
    method: str | Method | None = None,
    purpose: Purpose = "heal",
    discovery: float | None = None,
    seed: int = 0,
    device: str | None = None,
    devices: Devices | None = None,
    dtype: str | None = None,
    workers: int = 0,
    cache: str = "auto",
    recipe: Recipe | None = None,
    base: Mapping[str, torch.Tensor] | None = None,
    earlier: Mapping[str, torch.Tensor] | None = None,
    unseen: Any = None,
    validation: Any = None,
    codes: torch.Tensor | None = None,
    progress: Progress = silent,
    **settings: Any,
) -> Result:
    """Return a copy of ``model`` from which the examples at ``forget`` have been unlearned.

    Args:
        model: any module that maps a batch of inputs to logits (B, n_classes). It stays untouched.
        train_set: what it was trained on, bad examples included: a map-style dataset of (input, label)
            pairs or of dictionaries as those of Hugging Face, or :class:`Examples`.
        forget: positions in ``train_set`` (integers, or a boolean mask), each once, not all of them.
        method: name of a method ("expunge list methods"), or a configured one; by default the one that
            :func:`expunge.choice.choose` names, as in "expunge clean".
        purpose: "heal" what bad examples did to the model, or "forget" good ones; for that choice.
        discovery: share of the bad examples that ``forget`` holds, in (0, 1], if it is known; for that choice.
        seed: of everything random in the method.
        device: torch device; by default that of ``train_set`` if it is :class:`Examples`, else an
            accelerator where there is one.
        devices: how many devices share the method's training steps, by default one; see
            :class:`expunge.training.numerics.Devices`. A script then begins its work below
            ``if __name__ == "__main__":``, and ``progress`` is not called.
        dtype: "float32", or "bfloat16" for convolutions and matrix products; by default float32 for tables, tokens
            and images below 16 pixels, and bfloat16 for larger ones where the hardware multiplies it.
        workers: processes that read data sets ahead; the result is the same. :class:`Examples` are read as they are.
        cache: where rows stay once they are read: "memory"; "disk", a temporary file; a folder, for that file;
            "none"; or "auto": in memory, else on disk, and nowhere if the data set draws random numbers.
        recipe: how the model was first trained; needed by "retrain", used by "relearn".
        base: state dict of the pretrained weights that the training began from; used by "relearn".
        earlier: state dict of an earlier checkpoint of the same training, in place of ``base``.
        unseen: examples the model was not trained on, in the form of ``train_set``; needed by "lotus" and
            "scrub_rewind".
        validation: examples the model was not trained on, in the form of ``train_set``: what the verdict is measured
            on. No method sees them.
        codes: float32 (n_classes, ...), the mnemonic codes the model was trained with; for "mnemonic_code".
        progress: called with the share of the work that is done.
        settings: settings of the method named, for example ``rounds=5``.

    Raises:
        UnknownName: no such method or setting.
        InvalidInput: forget positions that are empty, repeated, out of range or everything; a model whose
            output is not (B, n_classes); settings outside their range; a need that is not met;
            :class:`Examples` on another device; ``base`` and ``earlier`` at once, or of another network; fewer
            retained examples than classes for a method that reads them.
        DataError: labels out of range, inputs of unequal shape, NaN or inf in an input.
        Diverged: training led to NaN.

    Example:
        >>> import torch, expunge
        >>> inputs, labels = torch.randn(64, 1, 8, 8), torch.arange(64) % 2
        >>> data = torch.utils.data.TensorDataset(inputs, labels)
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 8), torch.nn.Linear(8, 2))
        >>> result = expunge.unlearn(net, data, forget=[3, 5], method="npo", passes=1)
        >>> result.cost.sample_gradients <= 2
        True
    """
    chosen = None if method is None else _configured(method, purpose, settings)
    if chosen is not None and Needs.TRUTH in chosen.needs:
        raise InvalidInput(
            f"method {chosen.name!r} is an oracle: it needs to know what really happened to the data, which "
            "only an experiment does ('expunge map')"
        )
    train_set, reader = readable(train_set), Reader(workers=workers, cache=cache)
    positions = positions_of(forget, len(train_set))
    examples, numerics = examples_for(model, train_set, device, dtype, reader)
    numerics = replace(numerics, devices=devices or Devices())
    held_out = _beside("unseen", unseen, examples, numerics, reader)
    measured = _beside("validation", validation, examples, numerics, reader)
    start = start_weights(model, base, earlier)
    split = Split(examples, positions, held_out)
    request = Request(
        split, seed=seed, numerics=numerics, recipe=recipe, codes=codes, start=start, progress=progress
    )
    if chosen is None:
        situation = situation_of(
            model, split, purpose=purpose, discovery=discovery, recipe=recipe, codes=codes, start=start,
            pretrained=base is not None,
        )  # fmt: skip

        def made(name: str) -> Method:
            started = starting_settings(METHODS.get(name), len(examples), purpose, recipe)
            method = load_method(name, **(started | settings))
            check_retained(method, split)
            method.check(model, request.grant(name, method.needs, method.uses))
            return method

        chosen, _ = first_that_works(choose(situation), made)
    else:
        check_retained(chosen, split)
    # In bfloat16 confidences near 1 would be equal, and attacks blind.
    return Result(
        **vars(chosen(model, request)), original=model, train=examples, forget=positions, validation=measured,
        purpose=purpose, numerics=replace(numerics, dtype="float32", devices=Devices()),
    )  # fmt: skip


def _beside(name: str, given: Any, examples: Examples, numerics: Numerics, reader: Reader) -> Examples | None:
    """Return other examples for the same model, where they are given."""
    if given is None:
        return None
    if not isinstance(given, Examples):
        return examples_from_dataset(given, examples.n_classes, numerics.device, reader)
    _check_place(name, given, numerics)
    return given


def first_that_works(choice: Choice, made: Callable[[str], Method]) -> tuple[Method, InvalidInput | None]:
    """Return what ``made`` makes of the chosen name, or of the next best and why the first cannot work here.

    Raises:
        UnknownName: a setting that the chosen method does not have.
        InvalidInput: neither works; what is wrong with the first says more.
    """
    try:
        return made(choice.method), None
    except InvalidInput as error:
        if isinstance(error, UnknownName) or not choice.runner_up:
            raise
        try:
            return made(choice.runner_up), error
        except InvalidInput:
            raise error from None


def situation_of(
    model: nn.Module,
    split: Split,
    *,
    purpose: Purpose,
    discovery: float | None,
    recipe: Recipe | None,
    codes: torch.Tensor | None,
    start: Mapping[str, torch.Tensor] | None,
    pretrained: bool,
) -> Situation:
    """Return what is known of a case, for the choice of a method; what is given is described at :func:`unlearn`."""
    x = next(split.train.batches(1)).x
    situation = Situation(
        purpose=purpose,
        discovery=discovery,
        whole_classes=bool(split.forget_classes),
        codes=codes is not None,
        images=x.ndim == 4,
        floating=x.is_floating_point(),
        loosens=start is not None or usual_share(model) < 1,
        recipe=recipe is not None and not pretrained,
    )
    if recipe is None:
        return situation
    if purpose == "heal" or loosened(situation):
        epochs = Relearn().epochs_on(len(split.train), recipe.batch_size, recipe)
    else:
        epochs = load_method(fine_tuned(situation)).typical_epochs(recipe)
    return replace(situation, price=epochs / recipe.epochs)


def start_weights(
    model: nn.Module, base: Mapping[str, torch.Tensor] | None, earlier: Mapping[str, torch.Tensor] | None
) -> Mapping[str, torch.Tensor] | None:
    """Return the weights that a repair may go back to, checked; ``None`` for none.

    Raises:
        InvalidInput: both are given; something that is no state dict; another network's.
    """
    if base is not None and earlier is not None:
        raise InvalidInput("give base or earlier, not both: weights can go back to one place only")
    start = base if earlier is None else earlier
    if start is None:
        return None
    name = "base" if earlier is None else "earlier"
    if not isinstance(start, Mapping) or not all(isinstance(value, torch.Tensor) for value in start.values()):
        raise InvalidInput(
            f"{name} must be a state dict (name -> tensor), got {reprlib.repr(start)}; give "
            "torch.load(file, weights_only=True), or model.state_dict()"
        )
    if not start:
        raise InvalidInput(f"{name} is an empty state dict; give the weights of the same network")
    matching(model, start)
    return start


def check_retained(method: Method, split: Split) -> None:
    """Refuse a method that learns from the retained examples where these are fewer than the classes."""
    left = len(split.train) - len(split.forget_positions)
    if Needs.RETAIN in method.needs and left < split.train.n_classes:
        raise InvalidInput(
            f"{left} examples are left beside the listed ones, for {split.train.n_classes} classes: too few for "
            f"method {method.name!r} to learn from; list fewer, or train a new model on other data"
        )


def _configured(method: str | Method, purpose: Purpose, settings: dict[str, Any]) -> Method:
    if isinstance(method, str):
        return load_method(method, **(purpose_settings(METHODS.get(method), purpose) | settings))
    if isinstance(method, type) and issubclass(method, Method):
        given = ", ".join(f"{name}={value!r}" for name, value in settings.items())
        raise InvalidInput(
            f"method must be a name or a configured method, got the class {method.__name__}; give "
            f"method={method.__name__}({given})"
        )
    if not isinstance(method, Method):
        raise InvalidInput(
            f"method must be a name or a configured method, got {method!r}; 'expunge list methods' has the names"
        )
    if settings:
        raise InvalidInput(
            f"settings {sorted(settings)} go with a method's name; {method.name!r} is configured"
        )
    return method


def positions_of(forget: Iterable[int] | torch.Tensor, count: int, what: str = "forget") -> torch.Tensor:
    """Return int64 (F,), sorted: positions among ``count`` examples, given as integers or a boolean mask.

    Raises:
        InvalidInput: none, one twice, one out of range, all of them, or something else.
    """
    try:
        given = forget if isinstance(forget, torch.Tensor) else torch.as_tensor(list(forget))
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidInput(
            f"{what} must be positions in the training set (integers, or a boolean mask), got "
            f"{reprlib.repr(forget)}; give a list, such as {what}=[3, 5]"
        ) from error
    return check_forget(given, count)


def _check_place(name: str, examples: Examples, numerics: Numerics) -> None:
    # A tensor's device has the number that "cuda" alone lacks.
    wanted = torch.empty(0, device=numerics.device).device
    if examples.labels.device != wanted:
        raise InvalidInput(
            f"{name} is on {examples.labels.device} and the work is to be done on {wanted}; give a device that "
            "is the same for all, or datasets, which are read to the device"
        )


def readable(train_set: Any) -> Any:
    """Return :class:`Examples` as they are, anything else as a map-style data set of (input, label) pairs."""
    if isinstance(train_set, Examples):
        check_not_empty(train_set)
        return train_set
    return as_pairs(train_set)


def examples_for(
    model: nn.Module,
    train_set: Any,
    device: str | None,
    dtype: str | None = None,
    reader: Reader | None = None,
) -> tuple[Examples, Numerics]:
    """Return the examples of a :func:`readable` set, with a class for each logit of the model; and where to compute.

    Raises:
        InvalidInput: a model whose output is not (B, n_classes), another number of classes,
            :class:`Examples` on another device.
        DataError: labels out of range, inputs of unequal shape, NaN or inf in an input.
    """
    if isinstance(train_set, Examples):
        device = device or str(train_set.device)
    examples = _examples(model, train_set, Numerics.choose(device).device, reader)
    numerics = Numerics.for_inputs(device, tuple(next(examples.batches(1)).x.shape[1:]), dtype)
    _check_place("train_set", examples, numerics)
    return examples, numerics


def _examples(model: nn.Module, train_set: Any, device: str, reader: Reader | None) -> Examples:
    if isinstance(train_set, Examples):
        n_classes = check_logits(model, next(train_set.batches(3)).x).n_logits
        if n_classes != train_set.n_classes:
            raise InvalidInput(
                f"the model gives {n_classes} logits but the data has {train_set.n_classes} classes"
            )
        return train_set
    shape: torch.Size | None = None

    def look(x: torch.Tensor, row: int) -> None:  # a bad input is found now, not after an hour
        nonlocal shape
        shape = x.shape if shape is None else shape
        check_input(x, row, shape)

    source = MappedSource(train_set, device, reader)
    # The number of classes is the number of logits.
    n_classes = check_logits(model, source.fetch(torch.arange(min(3, len(train_set))), None)).n_logits
    return Examples.all_of(source, numbered_labels(source, look), n_classes)
