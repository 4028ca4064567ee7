"""A whole sweep in one TOML file: data, tasks, recipes, methods, seeds."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import tomlkit

from expunge.errors import ExpungeError, InvalidInput, near_miss
from expunge.evaluation.evaluate import load_metrics
from expunge.methods.base import Method
from expunge.populations.population import FEWEST
from expunge.registry import METHODS, TASKS, Registry
from expunge.settings import make_settings
from expunge.sweep.plan import POPULATION, DataChoice, Plan, make_plan
from expunge.sweep.preset import SETTINGS, SWEEP, Preset, parse_toml, settings_text
from expunge.tasks.base import Task
from expunge.training.numerics import Numerics
from expunge.training.recipe import Recipe

_SECTIONS = (*SWEEP, *SETTINGS)
_FORMS = {
    "tasks": "[[tasks]] tables",
    "run": "method names, run = ['retrain', 'natmu']",
    "seeds": "whole numbers, seeds = [0, 1, 2]",
    "unlearning_seeds": "whole numbers, unlearning_seeds = [0, 1, 2]",
    "metrics": "metric names, metrics = ['tow', 'accuracy_gaps']",
    "recipes": "[[recipes]] tables",
}
_Made = TypeVar("_Made")


@dataclass(frozen=True)
class Setup:
    """How original models are trained, and the methods as they are set for them."""

    recipe: Recipe
    methods: tuple[Method, ...]


@dataclass(frozen=True)
class Grid:
    """What is to be run; every combination of task, setup, its methods and seed is a cell.

    Args:
        data: which data.
        tasks: what is to be forgotten.
        setups: at least one.
        seeds: of data and training, and of unlearning unless there are ``unlearning_seeds``.
        unlearning_seeds: each method is run with each of them on each original model.
        metrics: names of metrics beside those of every record.
        population: models of each population, for the metrics that need some ("ulira", "klom", ...).
    """

    data: DataChoice
    tasks: tuple[Task, ...]
    setups: tuple[Setup, ...]
    seeds: tuple[int, ...]
    unlearning_seeds: tuple[int, ...] = ()
    metrics: tuple[str, ...] = ()
    population: int = POPULATION

    def single(self) -> Setup:
        """Return the only setup; raise InvalidInput where there are several."""
        if len(self.setups) > 1:
            raise InvalidInput(
                f"one recipe is expected, but the grid has {len(self.setups)} "
                f"({', '.join(setup.recipe.model for setup in self.setups)}); leave one [[recipes]] table"
            )
        return self.setups[0]

    def plan(self, numerics: Numerics) -> Plan:
        """Lay out all cells; setups of one recipe share original models.

        Raises like :func:`make_plan`.
        """
        return Plan.of(
            cell
            for setup in self.setups
            for cell in make_plan(
                self.data, self.tasks, setup.recipe, setup.methods, self.seeds, numerics,
                unlearning_seeds=self.unlearning_seeds, metrics=self.metrics, population=self.population,
            ).cells
        )  # fmt: skip

    def text(self) -> str:
        """Return TOML that :meth:`parse` reads as this grid, whatever packaged settings come to be.

        Every setting is written out; the folder of the data is not, since it differs between machines. A setting
        without a value is left out, as TOML has none.
        """
        setups = [
            {
                **_plain(dataclasses.asdict(setup.recipe)),
                "methods": {
                    _path(METHODS, method.name, method): _plain(method.settings()) for method in setup.methods
                },
            }
            for setup in self.setups
        ]
        content: dict[str, Any] = {
            "run": [_path(METHODS, method.name, method) for method in self.setups[0].methods],
            "seeds": list(self.seeds),
            "unlearning_seeds": list(self.unlearning_seeds),
            "metrics": list(self.metrics),
            "population": 0 if self.population == POPULATION else self.population,
            "data": _plain(dataclasses.asdict(dataclasses.replace(self.data, root=None))),
            "tasks": [
                {"kind": _path(TASKS, task.kind, task), **_plain(dataclasses.asdict(task), but="seed")}
                for task in self.tasks
            ],
        }
        if len(setups) == 1:
            content["methods"] = setups[0].pop("methods")
            content["recipe"] = setups[0]
        else:
            content["recipes"] = setups
        return tomlkit.dumps({name: value for name, value in content.items() if value})

    @classmethod
    def read(cls, path: str | Path) -> Grid:
        """Read a grid from a file, or a packaged one by name.

        Raises:
            InvalidInput: a file that cannot be read or is not TOML, or settings that are wrong; the message
                names every fault.
        """
        return cls.parse(settings_text(str(path), "grid"), str(path))

    @classmethod
    def parse(cls, text: str, origin: str) -> Grid:
        """Read a grid from TOML.

        The tables ``[data]``, ``[recipe]``, ``[task]`` (defaults of corruption tasks) and
        ``[methods.NAME]`` hold settings, on top of those of the packaged file named by ``settings = "NAME"`` if
        there is one; ``run`` lists the methods and ``seeds`` the seeds. ``unlearning_seeds``
        varies the unlearning by itself, and ``metrics`` names what is measured beside the usual. Some
        metrics need populations of models; ``population`` says of how many.

        ``[methods."*"]`` is for all methods, but a method whose default for a field is ``None`` finds the value itself
        and is left out: ``relearn`` trains with the rate, the optimiser and the batch size of the recipe.

        ``[[tasks]]`` names a task each, by ``kind``. A list given for a setting that takes one value stands for
        a task for each of its values; several lists, for every combination.

        ``[[recipes]]``, where there are some, are the setups: each holds deviations from ``[recipe]`` and, in
        ``[recipes.methods.NAME]``, deviations from ``[methods]``. Without any, ``[recipe]`` is the only one.

        Raises like :meth:`read`.
        """
        content = parse_toml(text, origin)
        faults = _Faults()
        for section in content:
            if section not in _SECTIONS:
                hint = near_miss(section, _SECTIONS)
                faults.found.append(f"unknown section {section!r}{hint} (known: {', '.join(_SECTIONS)})")
        settings: dict[str, Any] = {name: content[name] for name in SETTINGS if name in content}
        preset = faults.unless("settings", lambda: Preset.of_content(settings, origin)) or Preset()
        data = faults.unless("[data]", lambda: _data(content.get("data", {})))
        tasks: list[Task] = []
        for number, entry in enumerate(faults.list_of(content, "tasks", dict), 1):
            tasks += faults.unless(f"task {number}", partial(_tasks, entry, preset)) or []
        names = faults.list_of(content, "run", str)
        entries = faults.list_of(content, "recipes", dict) if "recipes" in content else [{}]
        setups = []
        for number, entry in enumerate(entries, 1):
            where = f"recipe {number}" if "recipes" in content else ""
            setups.append(_setup(entry, preset, names, faults, where))
        seeds = faults.list_of(content, "seeds", int)
        further = {
            name: tuple(faults.list_of(content, name, kind)) if name in content else ()
            for name, kind in (("unlearning_seeds", int), ("metrics", str))
        }
        faults.unless("metrics", lambda: load_metrics(further["metrics"]))
        population = content.get("population", POPULATION)
        if type(population) is not int or population < FEWEST:
            faults.found.append(f"'population' is a number of models, at least {FEWEST}; got {population!r}")
        faults.check(origin)
        assert data is not None
        return cls(data, tuple(tasks), tuple(setups), tuple(seeds), population=population, **further)


class _Faults:
    """Collects what is wrong, so that it is told at once."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def unless(self, what: str, make: Callable[[], _Made]) -> _Made | None:
        try:
            return make()
        except ExpungeError as error:
            self.found.append(f"{what}: {error}")
            return None

    def list_of(self, content: Mapping[str, Any], name: str, kind: type) -> list[Any]:
        found = content.get(name)
        if isinstance(found, list) and found and all(type(entry) is kind for entry in found):
            return found
        self.found.append(f"{name!r} must be a list of at least one of: {_FORMS[name]}; got {found!r}")
        return []

    def check(self, origin: str) -> None:
        if self.found:
            raise InvalidInput(
                f"{origin} has {len(self.found)} fault{'s' if len(self.found) > 1 else ''}:\n"
                + "\n".join(f"- {fault}" for fault in self.found)
            )


def _plain(settings: Mapping[str, Any], but: str = "") -> dict[str, Any]:
    """Settings as they stand in a file: lists for tuples, no entry without a value."""

    def kept(table: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in table.items() if value is not None}

    plain: dict[str, Any] = json.loads(json.dumps(settings), object_hook=kept)
    plain.pop(but, None)
    return plain


def _path(registry: Registry, name: str, made: object) -> str:
    """A name in the table, or the path of a class that is not there."""
    kind = type(made)
    return name if name in registry.targets else f"{kind.__module__}:{kind.__qualname__}"


def _data(content: Any) -> DataChoice:
    if not isinstance(content, dict) or "name" not in content:
        raise InvalidInput(f"a table with at least a name is expected, got {content!r}")
    return make_settings(DataChoice, content, "data")


def _setup(entry: Mapping[str, Any], preset: Preset, names: list[str], faults: _Faults, where: str) -> Setup:
    content = dict(entry)
    settings = {"methods": content.pop("methods", {}), "recipe": content}
    own = faults.unless(where, lambda: Preset.of_content(settings, "its settings")) or Preset()
    recipe = faults.unless(where or "[recipe]", lambda: preset.with_deviations(own).make_recipe())
    prefix = f"{where}, " if where else ""

    def make(name: str) -> Method:
        return preset.make_method(name, own.of_method(name))

    made = [faults.unless(f"{prefix}method {name}", partial(make, name)) for name in names]
    return Setup(recipe or Recipe(), tuple(method for method in made if method is not None))


def _tasks(content: Mapping[str, Any], preset: Preset) -> list[Task]:
    given = dict(content)
    kind = given.pop("kind", None)
    if not isinstance(kind, str):
        raise InvalidInput(f"a task takes a kind, one of {', '.join(TASKS.names())}; got {kind!r}")
    made: type[Task] = TASKS.get(kind)
    own = dataclasses.fields(made)
    plural = {entry.name for entry in own if isinstance(entry.default, tuple)}
    choices: dict[str, list[Any]] = {}
    for name, value in given.items():
        listed = isinstance(value, list)
        choices[name] = value if listed and name not in plural else [tuple(value) if listed else value]
        if not choices[name]:
            raise InvalidInput(f"{name} is an empty list; give at least one value")
    usual = {
        entry.name: preset.task[entry.name] for entry in own if made.on_map and entry.name in preset.task
    }
    return [
        make_settings(made, {**usual, **dict(zip(choices, values, strict=True))}, repr(kind))
        for values in itertools.product(*choices.values())
    ]
