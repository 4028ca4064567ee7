"""The settings a data set is benchmarked with: defaults, deviations of its grid file, then the user's."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from expunge.api import load_method
from expunge.errors import InvalidInput, UnknownName
from expunge.methods.base import Method
from expunge.registry import METHODS
from expunge.tasks.corruption import CorruptionTask
from expunge.training.recipe import Optimiser, Recipe

_SECTIONS = ("task", "recipe", "methods")
_SWEEP = ("data", "run", "seeds", "tasks")
_Settings = TypeVar("_Settings", CorruptionTask, Recipe, Optimiser)


@dataclass(frozen=True)
class Preset:
    """Deviations from the defaults.

    Args:
        task: fields of :class:`CorruptionTask`.
        recipe: fields of :class:`Recipe`; ``optimiser`` and ``model_settings`` are tables of their own.
        methods: pattern of method names -> fields. Later patterns win; a field a method does not have is
            left out where the pattern has a wildcard, and an error where it is a name.
    """

    task: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    methods: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, data: str) -> Preset:
        """Return the preset packaged for a data set; an empty one if there is none."""
        file = resources.files("expunge.grids").joinpath(f"{data}.toml")
        if "/" in data or not file.is_file():
            return cls()
        return cls.parse(file.read_text(encoding="utf-8"), str(file))

    @classmethod
    def named(cls, name: str) -> Preset:
        """Return a packaged preset by name, or read the TOML file of that path.

        Raises:
            InvalidInput: neither, or a file that cannot be read.
        """
        packaged = packaged_presets()
        if name in packaged:
            return cls.parse(packaged[name], name)
        try:
            return cls.parse(Path(name).read_text(encoding="utf-8"), name)
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput(
                f"preset {name!r} is neither packaged ({', '.join(packaged)}) nor a file that can be read: {error}"
            ) from error

    @classmethod
    def parse(cls, text: str, origin: str) -> Preset:
        """Read a preset from TOML.

        Raises:
            InvalidInput: not TOML, a section that is not known, or one that is not a table.
        """
        try:
            content = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise InvalidInput(f"{origin} is not valid TOML: {error}") from error
        # The parts of a sweep that are not settings are read by Grid.
        return cls.of_content({key: value for key, value in content.items() if key not in _SWEEP}, origin)

    @classmethod
    def of_content(cls, content: Mapping[str, Any], origin: str) -> Preset:
        """Return the preset of parsed TOML; see :meth:`parse`."""
        for section, entries in content.items():
            if section not in _SECTIONS:
                raise UnknownName(f"{origin}: unknown section [{section}] (known: {', '.join(_SECTIONS)})")
            methods = entries.values() if section == "methods" and isinstance(entries, dict) else ()
            for table in (entries, *methods):
                if not isinstance(table, dict):
                    form = "[methods.NAME]" if section == "methods" else f"[{section}]"
                    raise InvalidInput(
                        f"{origin}: settings belong in a table {form}, got {table!r} outside one"
                    )
        return cls(**content)

    def make_task(self, **overrides: Any) -> CorruptionTask:
        """Return the task with this preset's and the caller's deviations."""
        return _make(CorruptionTask, {**self.task, **overrides})

    def make_recipe(self, model: str | None = None) -> Recipe:
        """Return the training recipe; ``model`` replaces the preset's and drops its model settings."""
        content = dict(self.recipe)
        if "optimiser" in content:
            if not isinstance(content["optimiser"], Mapping):
                raise InvalidInput(
                    "recipe.optimiser takes a table such as { name = 'adam', lr = 0.001 }, "
                    f"got {content['optimiser']!r}"
                )
            content["optimiser"] = _make(Optimiser, content["optimiser"])
        if model is not None and model != content.get("model", Recipe.model):
            content = {**content, "model": model, "model_settings": {}}
        return _make(Recipe, content)

    def make_method(self, name: str, overrides: Mapping[str, Any] | None = None) -> Method:
        """Return a method with this preset's and the caller's deviations.

        Raises:
            UnknownName: no such method or setting.
            InvalidInput: a value of the wrong type or outside its range.
        """
        kind = METHODS.get(name)
        known = (
            {entry.name for entry in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else set()
        )
        settings: dict[str, Any] = {}
        for pattern, values in self.methods.items():
            if fnmatchcase(name, pattern):
                exact = pattern == name
                settings.update({key: value for key, value in values.items() if exact or key in known})
        settings.update(overrides or {})
        _check_switches(name, kind, settings)
        try:
            return load_method(name, **settings)
        except TypeError as error:
            raise _wrong_type(name, settings, error) from error


def packaged_presets() -> dict[str, str]:
    """Name -> text of every preset and grid that comes with the package."""
    files = sorted(resources.files("expunge.grids").iterdir(), key=lambda entry: entry.name)
    return {
        entry.name.removesuffix(".toml"): entry.read_text(encoding="utf-8")
        for entry in files
        if entry.name.endswith(".toml")
    }


def _make(kind: type[_Settings], content: Mapping[str, Any]) -> _Settings:
    known = [entry.name for entry in dataclasses.fields(kind)]
    for name in content:
        if name not in known:
            raise UnknownName(f"{kind.__name__} has no setting {name!r} (settings: {', '.join(known)})")
    _check_switches(kind.__name__, kind, content)
    try:
        return kind(**content)
    except TypeError as error:
        raise _wrong_type(kind.__name__, content, error) from error


def _check_switches(owner: str, kind: Any, settings: Mapping[str, Any]) -> None:
    # Any text, "False" included, would pass for true.
    for entry in dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ():
        value = settings.get(entry.name, entry.default)
        if isinstance(entry.default, bool) and not isinstance(value, bool):
            raise InvalidInput(f"{owner}: {entry.name} must be true or false, got {value!r}")


def _wrong_type(owner: str, settings: Mapping[str, Any], error: TypeError) -> InvalidInput:
    return InvalidInput(f"{owner} cannot be made with {dict(settings)}: a value has the wrong type ({error})")
