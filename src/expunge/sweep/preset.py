"""The settings a data set is benchmarked with: defaults, deviations of its grid file, then the user's."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path
from typing import Any

from expunge.api import load_method
from expunge.errors import InvalidInput, UnknownName, near_miss
from expunge.methods.base import Method
from expunge.registry import METHODS
from expunge.settings import make_settings
from expunge.tasks.corruption import CorruptionTask
from expunge.training.preparations import ExampleTied, MnemonicCodes
from expunge.training.recipe import Optimiser, Recipe

SETTINGS = ("settings", "task", "recipe", "methods")
"""What of a file is settings; ``settings`` names the packaged file whose settings the others deviate from."""
_SECTIONS = SETTINGS[1:]
SWEEP = ("data", "run", "seeds", "unlearning_seeds", "metrics", "population", "tasks", "recipes")
"""What of a file lays out a sweep; Grid reads it."""
_TABLES: dict[str, tuple[type[Any] | None, str]] = {
    "optimiser": (Optimiser, "{ name = 'adam', lr = 0.001 }"),
    "codes": (MnemonicCodes, "{ share = 0.1 }"),
    "example_tied": (ExampleTied, "{ share = 0.2 }"),
    "model_settings": (None, "{ width = 32 }"),
}


@dataclass(frozen=True)
class Preset:
    """Deviations from the defaults.

    Args:
        task: fields of the tasks on the map, such as :class:`CorruptionTask`.
        recipe: fields of :class:`Recipe`; ``optimiser`` and ``model_settings`` are tables of their own.
        methods: pattern of method names -> fields. Later patterns win; a field that a method does not have, or that
            has no effect in it, is left out where the pattern has a wildcard, and an error where it is a name. "*",
            for all methods, also leaves out fields whose default is ``None``: the method finds such a value itself.
    """

    task: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    methods: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, data: str) -> Preset:
        """Return the preset packaged for a data set; an empty one if there is none."""
        text = packaged_presets().get(data)
        return cls() if text is None else cls.parse(text, data)

    @classmethod
    def named(cls, name: str) -> Preset:
        """Return a packaged preset by name, or read the TOML file of that path; raises like :func:`settings_text`."""
        return cls.parse(settings_text(name, "preset"), name)

    @classmethod
    def parse(cls, text: str, origin: str) -> Preset:
        """Read a preset from TOML.

        ``settings = "NAME"`` starts from those of a packaged file; what the tables hold replaces them one by one.

        Raises:
            InvalidInput: not TOML, a section that is not known, or one that is not a table; no such packaged file.
            UnknownName: settings of methods that no method's name matches.
        """
        content = parse_toml(text, origin)
        # A table [recipes] is a misspelt [recipe].
        settings = {
            key: value
            for key, value in content.items()
            if key not in SWEEP or (key == "recipes" and isinstance(value, dict))
        }
        return cls.of_content(settings, origin)

    @classmethod
    def of_content(cls, content: Mapping[str, Any], origin: str) -> Preset:
        """Return the preset of parsed TOML; see :meth:`parse`."""
        content = dict(content)
        base = content.pop("settings", None)
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
        for pattern in content.get("methods", {}):
            _check_pattern(pattern, origin)
        own = cls(**content)
        if base is None:
            return own
        packaged = packaged_presets()
        if not isinstance(base, str) or base not in packaged:
            hint = near_miss(str(base), packaged)
            raise UnknownName(
                f"{origin}: settings = {base!r} names no packaged file{hint} ({', '.join(packaged)})"
            )
        return cls.parse(packaged[base], base).with_deviations(own)

    def with_deviations(self, own: Preset) -> Preset:
        """Return these settings with those of ``own`` in their place; another model drops its settings."""
        recipe = {**self.recipe, **own.recipe}
        if recipe.get("model", Recipe.model) != self.recipe.get("model", Recipe.model):
            recipe["model_settings"] = own.recipe.get("model_settings", {})
        # A pattern keeps its place in the order, which decides who wins.
        methods = {
            pattern: {**self.methods.get(pattern, {}), **own.methods.get(pattern, {})}
            for pattern in (*self.methods, *own.methods)
        }
        return Preset({**self.task, **own.task}, recipe, methods)

    def make_task(self, **overrides: Any) -> CorruptionTask:
        """Return the task of the map with this preset's and the caller's deviations."""
        return make_settings(CorruptionTask, {**self.task, **overrides})

    def make_recipe(self, model: str | None = None) -> Recipe:
        """Return the training recipe; ``model`` replaces the preset's and drops its model settings."""
        content = dict(self.recipe)
        for name, (kind, example) in _TABLES.items():
            if name not in content:
                continue
            if not isinstance(content[name], Mapping):
                raise InvalidInput(f"recipe.{name} takes a table such as {example}, got {content[name]!r}")
            if kind is not None:
                content[name] = make_settings(kind, content[name])
        if model is not None and model != content.get("model", Recipe.model):
            content = {**content, "model": model, "model_settings": {}}
        return make_settings(Recipe, content)

    def make_method(self, name: str, overrides: Mapping[str, Any] | None = None) -> Method:
        """Return a method with this preset's and the caller's deviations; raises like :func:`load_method`."""
        return load_method(name, **self.of_method(name, overrides))

    def of_method(self, name: str, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the settings this preset gives a method, and the caller's in their place."""
        kind: type[Method] = METHODS.get(name)
        known = dataclasses.is_dataclass(kind)
        defaults = kind.defaults() if known else {}
        settings: dict[str, Any] = {}
        own = {**self.methods.get(name, {}), **(overrides or {})}
        for pattern, values in self.methods.items():
            if fnmatchcase(name, pattern):
                settings.update(
                    (key, value)
                    for key, value in values.items()
                    if pattern == name or (key in defaults and not (pattern == "*" and defaults[key] is None))
                )
        settings |= overrides or {}
        idle = kind.without_effect(settings) if known else {}
        return {key: value for key, value in settings.items() if key in own or key not in idle}


def packaged_presets() -> dict[str, str]:
    """Name -> text of every preset and grid that comes with the package."""
    found = {
        entry.name.removesuffix(".toml"): entry.read_text(encoding="utf-8")
        for entry in resources.files("expunge.grids").iterdir()
        if entry.name.endswith(".toml")
    }
    return dict(sorted(found.items()))


def settings_text(name: str, what: str) -> str:
    """Return the text of a packaged file by name, or of the file at that path; ``what`` it is to be, for messages.

    Raises:
        InvalidInput: neither, or a file that cannot be read.
    """
    packaged = packaged_presets()
    if name in packaged:
        return packaged[name]
    try:
        return Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(
            f"{what} {name!r} is neither packaged ({', '.join(packaged)}) nor a file that can be read: {error}"
        ) from error


def parse_toml(text: str, origin: str) -> dict[str, Any]:
    """Return parsed TOML; raise InvalidInput for what is none."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f"{origin} is not valid TOML: {error}") from error


def _check_pattern(pattern: str, origin: str) -> None:
    # A path to a class of one's own is not in the table of methods.
    if ":" in pattern or "." in pattern or any(fnmatchcase(name, pattern) for name in METHODS.names()):
        return
    raise UnknownName(
        f"{origin}: [methods.{pattern}] matches no method{near_miss(pattern, METHODS.names())} "
        f"(known: {', '.join(METHODS.names())})"
    )
