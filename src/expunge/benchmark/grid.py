"""A whole sweep in one TOML file: data, tasks, recipe, methods, seeds."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expunge.benchmark.plan import DataChoice
from expunge.benchmark.preset import Preset, packaged_presets
from expunge.errors import ExpungeError, InvalidInput, near_miss
from expunge.methods.base import Method
from expunge.tasks.base import Task
from expunge.tasks.forgetting import FORGET_TASKS
from expunge.training.recipe import Recipe

_SECTIONS = ("data", "run", "seeds", "tasks", "task", "recipe", "methods")
_DATA = tuple(entry.name for entry in dataclasses.fields(DataChoice))


@dataclass(frozen=True)
class Grid:
    """What is to be run; every combination of task, method and seed is a cell.

    Args:
        data: which data.
        tasks: what is to be forgotten.
        recipe: how the first model is trained.
        methods: with their settings.
        seeds: of data, training and unlearning.
    """

    data: DataChoice
    tasks: tuple[Task, ...]
    recipe: Recipe
    methods: tuple[Method, ...]
    seeds: tuple[int, ...]

    @classmethod
    def read(cls, path: str | Path) -> Grid:
        """Read a grid from a file, or a packaged one by name.

        Raises:
            InvalidInput: a file that cannot be read or is not TOML, or settings that are wrong; the message
                names every fault.
        """
        packaged = packaged_presets()
        if str(path) in packaged:
            return cls.parse(packaged[str(path)], str(path))
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput(
                f"grid {str(path)!r} is neither packaged ({', '.join(packaged)}) nor a file that can be read: "
                f"{error}"
            ) from error
        return cls.parse(text, str(path))

    @classmethod
    def parse(cls, text: str, origin: str) -> Grid:
        """Read a grid from TOML.

        The tables ``[data]``, ``[recipe]``, ``[task]`` (defaults of corruption tasks) and
        ``[methods.NAME]`` hold settings; ``[[tasks]]`` names a task each, by ``kind``; ``run`` lists the
        methods and ``seeds`` the seeds.

        Raises:
            InvalidInput: see :meth:`read`.
        """
        try:
            content = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise InvalidInput(f"{origin} is not valid TOML: {error}") from error
        faults: list[str] = []
        for section in content:
            if section not in _SECTIONS:
                hint = near_miss(section, _SECTIONS)
                faults.append(f"unknown section {section!r}{hint} (known: {', '.join(_SECTIONS)})")
        preset, data, recipe = Preset(), DataChoice("digits"), Recipe()

        def attempt(what: str, make: Any) -> Any:
            try:
                return make()
            except (ExpungeError, TypeError, ValueError, AttributeError) as error:
                faults.append(f"{what}: {error}")
                return None

        settings: dict[str, Any] = {
            name: content[name] for name in ("task", "recipe", "methods") if name in content
        }
        preset = attempt("settings", lambda: Preset.of_content(settings, origin)) or preset
        data = attempt("[data]", lambda: _data(content.get("data", {}))) or data
        recipe = attempt("[recipe]", preset.make_recipe) or recipe
        tasks = _list(content, "tasks", dict, faults)
        made_tasks = [
            attempt(f"task {number}", lambda entry=entry: _task(entry, preset))
            for number, entry in enumerate(tasks, 1)
        ]
        methods = [
            attempt(f"method {name}", lambda name=name: preset.make_method(name))
            for name in _list(content, "run", str, faults)
        ]
        seeds = _list(content, "seeds", int, faults)
        if faults:
            raise InvalidInput(
                f"{origin} has {len(faults)} fault{'s' if len(faults) > 1 else ''}:\n"
                + "\n".join(f"- {fault}" for fault in faults)
            )
        return cls(data, tuple(made_tasks), recipe, tuple(methods), tuple(seeds))


def _list(content: Mapping[str, Any], name: str, kind: type, faults: list[str]) -> list[Any]:
    found = content.get(name)
    if not isinstance(found, list) or not found or not all(type(entry) is kind for entry in found):
        form = {"tasks": "[[tasks]] tables", "run": "method names, run = ['retrain', 'natmu']"}.get(
            name, "whole numbers, seeds = [0, 1, 2]"
        )
        faults.append(f"{name!r} must be a list of at least one of: {form}; got {found!r}")
        return []
    return found


def _data(content: Any) -> DataChoice:
    if not isinstance(content, dict) or "name" not in content:
        raise InvalidInput(f"a table with at least a name is expected, got {content!r}")
    for name in content:
        if name not in _DATA:
            raise InvalidInput(
                f"unknown setting {name!r}{near_miss(name, _DATA)} (known: {', '.join(_DATA)})"
            )
    return DataChoice(**content)


def _task(content: dict[str, Any], preset: Preset) -> Task:
    given = dict(content)
    kind = given.pop("kind", None)
    if kind == "corruption":
        return preset.make_task(**given)
    if kind not in FORGET_TASKS:
        known = ("corruption", *FORGET_TASKS)
        raise InvalidInput(f"unknown kind {kind!r}{near_miss(str(kind), known)} (known: {', '.join(known)})")
    made = FORGET_TASKS[kind]
    fields = [entry.name for entry in dataclasses.fields(made)]
    for name in given:
        if name not in fields:
            raise InvalidInput(f"{kind!r} has no setting {name!r} (settings: {', '.join(fields)})")
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in given.items()
    }
    return made(**values)
