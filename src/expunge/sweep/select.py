"""A part of a plan, by method, task, seed or any of the task's settings."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any

from expunge.errors import InvalidInput, UnknownName, near_miss
from expunge.sweep.plan import Cell, Plan
from expunge.tasks.regularity import regularity_name, regularity_value

_NAMED = ("method", "task", "model", "regularity")
"""What a word without a key may name."""


def select(plan: Plan, only: Iterable[str]) -> Plan:
    """Return the cells that every key admits; a key admits what any of its values matches.

    Args:
        plan: what there is.
        only: ``key=value`` with the key method, task, seed, unlearning_seed (in a grid that has some), model
            or a setting of the tasks, such as ``regularity=poison``, ``discovery=0.1``, ``classes=3+5``; or a
            method, task, model or regularity by name alone. Names may be patterns (``rem*``).

    Raises:
        UnknownName: something the plan does not have; the message lists what it has.
        InvalidInput: a name that stands for two things, or nothing that matches all keys together.
    """
    several = any(cell.unlearning_seed != cell.seed for cell in plan.cells)
    facts = {cell.key: _facts(cell, several) for cell in plan.cells}
    there: dict[str, list[Any]] = defaultdict(list)
    for found in facts.values():
        for key, value in found.items():
            if value not in there[key]:
                there[key].append(value)
    wanted: dict[str, list[str]] = defaultdict(list)
    for item in only:
        key, text = _resolved(item.strip(), there)
        wanted[key].append(text)
    chosen = [
        cell
        for cell in plan.cells
        if all(
            key in facts[cell.key] and any(_matches(key, text, facts[cell.key][key]) for text in texts)
            for key, texts in wanted.items()
        )
    ]
    if not chosen:
        said = ", ".join(f"{key}={text}" for key, texts in wanted.items() for text in texts)
        raise InvalidInput(f"no cell of the grid is all of {said}; the grid has {_listing(there)}")
    return Plan.of(chosen)


def _facts(cell: Cell, unlearning_seeds: bool) -> dict[str, Any]:
    return {
        "method": cell.method.name,
        "task": cell.task.kind,
        "model": cell.training.recipe.model,
        **dataclasses.asdict(cell.task),
        "seed": cell.seed,
        **({"unlearning_seed": cell.unlearning_seed} if unlearning_seeds else {}),
    }


def _resolved(item: str, there: dict[str, list[Any]]) -> tuple[str, str]:
    key, equals, text = item.partition("=")
    if equals:
        key, text = key.strip(), text.strip()
        if key not in there:
            raise UnknownName(
                f"the grid has no {key!r} to select by{near_miss(key, there)} (keys: {', '.join(there)})"
            )
        if not any(_matches(key, text, value) for value in there[key]):
            raise UnknownName(f"no cell has {key}={text}; the grid has {_listing(there)}")
        return key, text
    keys = [key for key in _NAMED if any(_matches(key, item, value) for value in there.get(key, ()))]
    if len(keys) > 1:
        raise InvalidInput(
            f"{item!r} may mean {' or '.join(f'{key}={item}' for key in keys)}; write one of them"
        )
    if not keys:
        names = [_shown(key, value) for key in _NAMED for value in there.get(key, ())]
        raise UnknownName(
            f"nothing in the grid is named {item!r}{near_miss(item, names)}; the grid has {_listing(there)}"
        )
    return keys[0], item


def _matches(key: str, text: str, value: Any) -> bool:
    if isinstance(value, str):
        return fnmatchcase(value, text)
    if isinstance(value, list | tuple):
        return "+".join(map(str, value)) == text
    try:
        return bool((regularity_value(text) if key == "regularity" else float(text)) == value)
    except ValueError:
        return False


def _shown(key: str, value: Any) -> str:
    if key == "regularity":
        return regularity_name(value)
    if isinstance(value, list | tuple):
        return "+".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _listing(there: dict[str, list[Any]]) -> str:
    """Say what there is; of the tasks' settings those that differ."""
    always = ("method", "task", "seed")
    return "; ".join(
        f"{key}: {', '.join(_shown(key, value) for value in values)}"
        for key, values in there.items()
        if key in always or len(values) > 1
    )
