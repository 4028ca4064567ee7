"""The command that runs cells of a store again."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from expunge.errors import ExpungeError
from expunge.report.seed_spread import unlearning_varies
from expunge.report.toml import toml_value
from expunge.store.record import Record
from expunge.tasks.regularity import regularity_name, regularity_value

_CHOICES: dict[str, type[float]] = {"n_train": int, "imbalance": float, "n_unseen": int}
"""What a label says of the choice of data, beside its name."""
_LABEL = re.compile(
    r"(?P<name>.+?)(?:\[(?P<n_train>\d+)\])?(?:~(?P<imbalance>[\d.]+))?(?:-(?P<n_unseen>\d+))?"
)


class Commands:
    """Commands of corruption records; settings that the data set's preset gives already are left out.

    Args:
        method_of: label under which a record is listed -> name of its method.
    """

    def __init__(self, method_of: Mapping[str, str]) -> None:
        self._method_of = method_of
        self._settings: dict[str, list[str] | None] = {}

    def command(self, records: Sequence[Record]) -> str | None:
        """Return the ``expunge map`` command that runs the cells of ``records`` again.

        ``None`` where no such command exists: several unlearning seeds of one training, a preparation with settings
        of its own, a method that is not installed, or one method with several settings.
        """
        first = records[0]
        found = _LABEL.fullmatch(first.data)
        # expunge map has one seed for training and unlearning.
        if found is None or unlearning_varies(records):
            return None
        name = first.data if _is_known(first.data) else found["name"]
        parts = ["expunge", "map", "--data", name]
        if name != first.data:
            for option in filter(found.group, _CHOICES):
                parts += [f"--{option.replace('_', '-')}", found[option]]
        parts += ["--methods", _listed(self._method_of[record.method] for record in records)]
        parts += ["--regularity", _listed(_regularity(record.regularity or 0.0) for record in records)]
        parts += ["--discovery", _listed(record.discovery for record in records)]
        parts += ["--seeds", _listed(record.seed for record in records)]
        options: dict[str, list[str]] = {}
        for record in records:
            deviations = self._of(record, name)
            method = self._method_of[record.method]
            if deviations is None or options.setdefault(method, deviations) != deviations:
                return None
        if device := first.provenance.get("device"):
            parts += ["--device", device]
        for option in dict.fromkeys(option for found in options.values() for option in found):
            parts += ["--set", option]
        return shlex.join(parts)

    def _of(self, record: Record, data: str) -> list[str] | None:
        method = self._method_of[record.method]
        asked = json.dumps([data, record.model, method, record.settings, record.recipe, _task(record)])
        if asked not in self._settings:
            self._settings[asked] = _deviations(record, method, data)
        return self._settings[asked]


def _deviations(record: Record, method: str, data: str) -> list[str] | None:
    """``OWNER.FIELD=VALUE`` for what differs from the preset of ``data``; None where that cannot be said."""
    # Presets read settings from the methods' classes, and those need torch.
    from expunge.benchmark.preset import Preset
    from expunge.registry import METHODS

    try:
        preset = Preset.of(data)
        settings = _plain(preset.make_method(method).settings())
        recipe = _plain(asdict(preset.make_recipe().prepared(METHODS.get(method).preparation)))
        task = _plain(asdict(preset.make_task()))
    except ExpungeError:
        return None
    for preparation in ("codes", "example_tied"):
        if recipe.pop(preparation) != record.recipe.get(preparation):
            return None
    given = {name: value for name, value in record.recipe.items() if name in recipe}
    differing = [
        (f"{owner}.{name}", value)
        for owner, stored, expected in (
            ("recipe", given, recipe),
            ("task", _task(record), task),
            (method, record.settings, settings),
        )
        for name, value in stored.items()
        if expected.get(name) != value
    ]
    if any(value is None for _, value in differing):  # TOML cannot say it
        return None
    return [f"{name}={toml_value(value)}" for name, value in differing]


def _regularity(value: float) -> str:
    name = regularity_name(value)  # rounds what has no name
    return name if regularity_value(name) == value else repr(value)


def _task(record: Record) -> dict[str, Any]:
    settings = {"n_corrupted": record.n_corrupted, **record.task_settings}
    return {
        name: value for name, value in settings.items() if name not in ("regularity", "discovery", "seed")
    }


def _is_known(data: str) -> bool:
    from expunge.registry import DATASETS

    return data in DATASETS.targets or data.endswith(".npz")


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(settings))
    return found


def _listed(values: Iterable[Any]) -> str:
    return ",".join(str(value) for value in dict.fromkeys(values))


def grid_text(records: Sequence[Record], method_of: Mapping[str, str]) -> str | None:
    """Return a grid file for ``expunge bench`` that runs records of one sweep again.

    The records are all of forgetting tasks, or all of corruption. A setting without a value is left out, since TOML
    has none. ``None`` where one method has several settings.
    """
    first = records[0]
    found = _LABEL.fullmatch(first.data)
    if found is None:
        return None
    data: dict[str, Any] = {"name": first.data}
    if not _is_known(first.data):
        data = {"name": found["name"]}
        data |= {option: kind(found[option]) for option, kind in _CHOICES.items() if found[option]}
    settings: dict[str, dict[str, Any]] = {}
    for record in records:
        if settings.setdefault(method_of[record.method], record.settings) != record.settings:
            return None
    tasks = {
        json.dumps({"kind": record.task, **_without_seed(record.task_settings)}): None for record in records
    }
    unlearning = sorted({record.unlearning_seed for record in records})
    lines = [
        f"run = {toml_value(list(settings))}",
        f"seeds = {toml_value(sorted({record.seed for record in records}))}",
        *([f"unlearning_seeds = {toml_value(unlearning)}"] if unlearning_varies(records) else []),
        *_table("data", data),
        *_table("recipe", first.recipe),
    ]
    for task in tasks:
        lines += ["", "[[tasks]]", *_pairs(json.loads(task))]
    for method, values in settings.items():
        if values:
            lines += _table(f"methods.{toml_value(method)}", values)
    return "\n".join(lines) + "\n"


def _table(name: str, values: Mapping[str, Any]) -> list[str]:
    return ["", f"[{name}]", *_pairs(values)]


def _pairs(values: Mapping[str, Any]) -> list[str]:
    return [f"{name} = {toml_value(value)}" for name, value in values.items() if value is not None]


def _without_seed(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name != "seed"}
