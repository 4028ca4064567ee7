"""Records of one store sorted into sweeps, so that no mean mixes settings."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from expunge.results.frame import measurements, task_settings
from expunge.results.summary import Summary, summarise
from expunge.store.record import Record

_PREPARATIONS = ("codes", "example_tied")
_LONGEST_LABEL = 48


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """The records that differ in method, place, task or seed alone.

    Args:
        title: data set and model, and what else tells this sweep from another of the same store.
        slug: the title as a part of a file name; no two sweeps share one.
        records: with at most one record for each method, task, training seed and unlearning seed. A method that
            was run with several settings appears under a label for each.
        method_of: label -> name of the method.
        notes: what was left out or renamed, as sentences.
    """

    title: str
    slug: str
    records: tuple[Record, ...]
    method_of: Mapping[str, str]
    notes: tuple[str, ...]

    @functools.cached_property
    def table(self) -> pd.DataFrame:
        """Their measurements."""
        return measurements(self.records, self.title)

    @property
    def on_map(self) -> bool:
        """Whether the records have a place on the map; else they are of tasks that forget good data."""
        return self.records[0].on_map

    @functools.cached_property
    def summary(self) -> Summary:
        """The map of their measurements, where they are on one."""
        return summarise(self.table)


def sort_into_sweeps(records: Iterable[Record]) -> list[Sweep]:
    """Return one sweep for each data set, model, recipe, size of the task and precision, by title.

    What a method's preparation adds to a recipe makes no other sweep.
    """
    groups: dict[str, list[Record]] = defaultdict(list)
    shared: dict[str, dict[str, Any]] = {}
    for record in records:
        settings = _shared(record)
        name = json.dumps([record.on_map, record.task if record.on_map else "", settings], sort_keys=True)
        groups[name].append(record)
        shared[name] = settings
    titles = _titles(shared, {name: group[0].on_map for name, group in groups.items()})
    found, slugs = [], set()
    for name in sorted(groups, key=lambda name: (titles[name], name)):
        slug = base = re.sub(r"[^a-z0-9]+", "-", titles[name].lower()).strip("-")[:60] or "sweep"
        number = 2
        while slug in slugs:
            slug, number = f"{base}-{number}", number + 1
        slugs.add(slug)
        found.append(_sweep(titles[name], slug, groups[name]))
    return found


def settings_text(settings: Mapping[str, Any]) -> str:
    """Return settings as ``name=value, ...``, values as JSON."""
    return ", ".join(f"{name}={_value(value)}" for name, value in settings.items())


def recipe_text(record: Record) -> str:
    """Return how the original model was trained, by the settings that have a value."""
    return settings_text({name: value for name, value in record.recipe.items() if value is not None})


def shared_task_settings(record: Record) -> dict[str, Any]:
    """Return the settings of a task on the map that all its places have in common."""
    return {
        name: value
        for name, value in task_settings(record).items()
        if name not in ("regularity", "discovery")
    }


def seed_text(record: Record) -> int | str:
    """Return the seed of a run; with the unlearning seed where that is another."""
    # A training seed of its own: written before the unlearning seed could be another.
    if record.unlearning_seed == record.seed or record.training_seed != record.seed:
        return record.seed
    return f"{record.seed}, unlearning {record.unlearning_seed}"


def _shared(record: Record) -> dict[str, Any]:
    """What all records of one sweep have in common, flat."""
    found: dict[str, Any] = {"data": record.data, "model": record.model}
    found["dtype"] = record.provenance.get("dtype", "")
    for name, value in record.recipe.items():
        if name not in (*_PREPARATIONS, "model"):
            found[f"recipe.{name}"] = value
    if record.on_map:
        found["task.n_corrupted"] = record.n_corrupted
        found |= {f"task.{name}": value for name, value in shared_task_settings(record).items()}
    return found


def _titles(shared: Mapping[str, Mapping[str, Any]], on_map: Mapping[str, bool]) -> dict[str, str]:
    groups: dict[tuple[Any, ...], dict[str, Mapping[str, Any]]] = defaultdict(dict)
    for name, settings in shared.items():
        groups[on_map[name], settings["data"], settings["model"]][name] = settings
    return {
        name: f"{data}, {model} ({told})" if told else f"{data}, {model}"
        for (_, data, model), group in groups.items()
        for name, told in _differences(group).items()
    }


def _sweep(title: str, slug: str, records: Sequence[Record]) -> Sweep:
    newest: dict[tuple[Any, ...], Record] = {}
    for record in sorted(records, key=lambda item: (item.provenance.get("created", ""), item.key)):
        newest[*_place(record), record.method, _settings_key(record)] = record
    kept = sorted(newest.values(), key=lambda item: (item.method, *map(str, _place(item)), item.key))
    notes = []
    left_out = len(records) - len(kept)
    if left_out:
        notes.append(
            f"{left_out} older record{'s' if left_out > 1 else ''} of cells that were run again with the same "
            "settings left out; the newest counts."
        )
    method_of: dict[str, str] = {}
    labelled: list[Record] = []
    by_method: dict[str, list[Record]] = defaultdict(list)
    for record in kept:
        by_method[record.method].append(record)
    for method, group in by_method.items():
        variants = sorted({_settings_key(record) for record in group})
        places = [_place(record) for record in group]
        if len(variants) == 1 or len(set(places)) == len(places):
            if len(variants) > 1:
                notes.append(
                    f"{method} ran with {len(variants)} settings, each in other cells; its panel tells which."
                )
            method_of[method] = method
            labelled += group
            continue
        labels = _labels(method, variants)
        notes.append(f"{method} ran with {len(variants)} settings; each has a row.")
        for record in group:
            label = labels[_settings_key(record)]
            method_of[label] = method
            labelled.append(dataclasses.replace(record, method=label))
    return Sweep(title=title, slug=slug, records=tuple(labelled), method_of=method_of, notes=tuple(notes))


def _place(record: Record) -> tuple[Any, ...]:
    if record.on_map:
        return record.regularity, record.discovery, record.seed, record.unlearning_seed
    return record.task, json.dumps(task_settings(record), sort_keys=True), record.seed, record.unlearning_seed


def _settings_key(record: Record) -> str:
    prepared = {name: record.recipe.get(name) for name in _PREPARATIONS if record.recipe.get(name)}
    return json.dumps([record.settings, prepared], sort_keys=True)


def _labels(method: str, variants: Sequence[str]) -> dict[str, str]:
    """Name each variant by what differs; by number where that is long."""
    parsed = {variant: {**json.loads(variant)[0], **json.loads(variant)[1]} for variant in variants}
    labels = {variant: f"{method} {told}" for variant, told in _differences(parsed).items()}
    if max(map(len, labels.values())) > _LONGEST_LABEL:
        labels = {variant: f"{method} #{number}" for number, variant in enumerate(variants, 1)}
    return labels


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _differences(several: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return each one's values of the settings that are not the same in all, as text."""
    names = sorted({name for settings in several.values() for name in settings})
    differing = [
        name for name in names if len({_value(settings.get(name)) for settings in several.values()}) > 1
    ]
    return {
        key: settings_text({name.removeprefix("recipe."): settings.get(name) for name in differing})
        for key, settings in several.items()
    }
