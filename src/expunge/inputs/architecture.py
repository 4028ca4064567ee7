"""The network a checkpoint belongs to, built from a specification, without weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from expunge.errors import InvalidInput, near_miss
from expunge.inputs.specification import Specification, call_factory, is_path
from expunge.optional import load_extra
from expunge.registry import MODELS
from expunge.seeding import global_generator

FORMS = "expunge:NAME, transformers:NAME_OR_FOLDER, timm:NAME or path/to/file.py:FACTORY"


class Preprocessing(NamedTuple):
    """How an architecture's own pipeline prepares images: statistics of pixels in [0, 1] per channel, side in pixels.

    ``None`` where it does not say.
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    size: int | None = None


def build_architecture(
    text: str, *, shape: tuple[int, ...] | None = None, n_classes: int | None = None
) -> nn.Module:
    """Return the module ``text`` names; it maps a batch of inputs to logits (B, n_classes), in float32.

    - ``expunge:resnet9?width=32``: the table of models ("expunge list models").
    - ``transformers:FOLDER``: the folder's ``config.json``; also a hub name, or a config class with settings
      (``transformers:ViTConfig?image_size=32``). No weights are read. Text models read token ids int64
      (B, T) and attend to what differs from the config's padding token (0 if it has none).
    - ``timm:resnet18``.
    - ``net.py:Net?width=32``: a function or class of your own that makes the module.

    The names in the state dict are those of the module as its own package makes it. Settings after the
    question mark are passed on; ``shape`` and ``n_classes`` fill in those that are not given.

    Args:
        text: the specification.
        shape: of one input, (C, H, W) for images.
        n_classes: number of logits.

    Raises:
        InvalidInput: an unknown form, name or setting; a package that is not installed.
        UnknownName: no such model in the table.
    """
    specification = Specification.parse(text)
    kind, colon, name = specification.target.partition(":")
    settings = dict(specification.settings)
    if not colon or not name:
        hint = near_miss(kind, MODELS.names()).replace("'", "'expunge:", 1)
        raise InvalidInput(f"architecture {text!r} is not understood{hint}; expected {FORMS}")
    if kind == "expunge":
        model = _from_table(name, settings, shape, n_classes)
    elif kind == "transformers":
        model = _from_transformers(name, settings, n_classes)
    elif kind == "timm":
        model = _from_timm(name, settings, shape, n_classes)
    else:
        model = call_factory(specification.target, settings, "a torch.nn.Module")
    if not isinstance(model, nn.Module):
        raise InvalidInput(
            f"architecture {text!r} made a {type(model).__name__}, expected a torch.nn.Module; return the module"
        )
    if hasattr(model, "main_input_name") and hasattr(model, "config"):
        return_logits(model)
    return model if kind not in ("transformers", "timm") else model.float()


@dataclass(frozen=True)
class FreshNetwork:
    """Makes untrained networks as :func:`build_architecture` does; their parameters follow from the generator."""

    arch: str
    shape: tuple[int, ...]
    n_classes: int

    def __call__(self, source: torch.Generator) -> nn.Module:
        """Return a network drawn from ``source``."""
        with global_generator(source):
            return build_architecture(self.arch, shape=self.shape, n_classes=self.n_classes)


def preprocessing_of(text: str) -> Preprocessing:
    """Return how the architecture's own pipeline prepares images, as far as it says.

    Read from ``preprocessor_config.json`` in the folder of a ``transformers:`` specification, and from the
    configuration of a ``timm:`` model; empty for all others.
    """
    kind, _, name = Specification.parse(text).target.partition(":")
    if kind == "transformers":
        return _of_folder(Path(name).expanduser())
    if kind == "timm":
        timm = load_extra("timm", "timm", "timm", f"architecture {text!r}")
        found = timm.create_model(name, pretrained=False).default_cfg
        *_, size = found.get("input_size") or (None,)
        return Preprocessing(_floats(found.get("mean")), _floats(found.get("std")), size)
    return Preprocessing()


def return_logits(model: nn.Module) -> nn.Module:
    """Make a model of ``transformers`` map one tensor to its logits (B, C), in place, and return it.

    Its class becomes a subclass of itself, so that its modules, parameters and buffers keep their names.
    """
    original = type(model)

    def forward(self: Any, x: Tensor) -> Tensor:
        inputs: dict[str, Any] = {self.main_input_name: x, "return_dict": True}
        if self.main_input_name == "input_ids":
            padding = getattr(self.config, "pad_token_id", None)
            inputs["attention_mask"] = (x != (0 if padding is None else padding)).long()
        outputs = original.forward(self, **inputs)
        logits = getattr(outputs, "logits", None)
        if not isinstance(logits, Tensor):
            raise InvalidInput(
                f"{original.__name__} returns no logits; expected a model for classification, such as "
                "AutoModelForImageClassification makes"
            )
        return logits

    model.__class__ = type(original.__name__, (original,), {"forward": forward, "__module__": __name__})
    return model


def _from_table(
    name: str, settings: dict[str, Any], shape: tuple[int, ...] | None, n_classes: int | None
) -> nn.Module:
    factory = MODELS.get(name)
    if shape is not None:
        if len(shape) != 3 or shape[1] != shape[2]:
            raise InvalidInput(
                f"model {name!r} reads square images (C, H, H), but an input of the data is {shape}; "
                "resize the images, or give another architecture"
            )
        settings = {"channels": shape[0], "size": shape[1], **settings}
    if n_classes is not None:
        settings = {"n_classes": n_classes, **settings}
    try:
        made: nn.Module = factory(**settings)
    except TypeError as error:
        raise InvalidInput(f"model {name!r} does not take the settings {settings}: {error}") from error
    return made


def _from_timm(
    name: str, settings: dict[str, Any], shape: tuple[int, ...] | None, n_classes: int | None
) -> Any:
    timm = load_extra("timm", "timm", "timm", f"architecture 'timm:{name}'")
    if shape is not None and len(shape) == 3:
        settings = {"in_chans": shape[0], **settings}
    if n_classes is not None:
        settings = {"num_classes": n_classes, **settings}
    try:
        return timm.create_model(name, pretrained=False, **settings)
    except (RuntimeError, TypeError, ValueError) as error:
        raise InvalidInput(
            f"timm cannot make {name!r} with {settings}: {error}; timm.list_models() names those it has"
        ) from error


def _from_transformers(name: str, settings: dict[str, Any], n_classes: int | None) -> Any:
    transformers = load_extra("transformers", "transformers", "text", f"architecture 'transformers:{name}'")
    config = _config(transformers, name, settings)
    # A configuration that was never told its classes has these two.
    unsaid = dict(config.id2label) == {0: "LABEL_0", 1: "LABEL_1"}
    if n_classes is not None and "num_labels" not in settings and unsaid:
        config.num_labels = n_classes
    for kind in ("AutoModelForImageClassification", "AutoModelForSequenceClassification"):
        auto = getattr(transformers, kind)
        if type(config) in auto._model_mapping:
            try:
                return auto.from_config(config)
            except (ImportError, TypeError, ValueError, RuntimeError) as error:
                raise InvalidInput(f"transformers cannot build {name!r}: {error}") from error
    raise InvalidInput(
        f"transformers has no classifier for a {config.model_type!r} model of images or text; "
        "give a factory of your own: path/to/file.py:FACTORY"
    )


def _config(transformers: Any, name: str, settings: Mapping[str, Any]) -> Any:
    if name.endswith("Config") and hasattr(transformers, name):
        _check_settings(name, settings, getattr(transformers, name)())
        try:
            return getattr(transformers, name)(**settings)
        # A configuration checks its values by errors of its own.
        except Exception as error:
            raise InvalidInput(f"{name} does not take the settings {dict(settings)}: {error}") from error
    path = Path(name).expanduser()
    if is_path(name) and not path.exists():
        raise InvalidInput(f"{name}: no such folder; expected one that holds a config.json")
    if path.is_dir() and not (path / "config.json").is_file():
        raise InvalidInput(f"{name} holds no config.json; give the folder save_pretrained wrote")
    try:
        config = transformers.AutoConfig.from_pretrained(str(path) if path.exists() else name)
        _check_settings(name, settings, config)
        for key, value in settings.items():
            setattr(config, key, value)
        return config
    except InvalidInput:
        raise
    # Unreadable JSON, an unknown model type and an absent network each come as an error of their own.
    except Exception as error:
        said = str(error).partition("\n")[0]
        raise InvalidInput(
            f"transformers finds no configuration {name!r}: {said} Give a folder that holds config.json, a config "
            "class, or the name of a model that can be downloaded"
        ) from error


def _check_settings(name: str, settings: Mapping[str, Any], config: Any) -> None:
    for key in settings:
        # It would take any name as an attribute, and build another network than was meant.
        if not hasattr(config, key):
            raise InvalidInput(f"{name} has no setting {key!r}{near_miss(key, config.to_dict())}")


def _of_folder(folder: Path) -> Preprocessing:
    file = folder / "preprocessor_config.json"
    if not file.is_file():
        return Preprocessing()
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InvalidInput(f"{file} is no JSON: {error}; restore it, or give --mean and --std") from error
    size = found.get("size")
    if isinstance(size, Mapping):
        size = size.get("height", size.get("shortest_edge"))
    mean, std = _floats(found.get("image_mean")), _floats(found.get("image_std"))
    if not found.get("do_normalize", True):
        mean, std = (0.0,), (1.0,)
    return Preprocessing(mean, std, size if isinstance(size, int) else None)


def _floats(values: Any) -> tuple[float, ...] | None:
    return tuple(float(value) for value in values) if isinstance(values, list | tuple) else None
