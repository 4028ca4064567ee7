"""The grids that were run into a store, and the command that runs a cell of one again."""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from expunge.store.record import Record
from expunge.tasks.regularity import regularity_name, regularity_value


class Grids:
    """The resolved grids of a store.

    Args:
        texts: their TOML.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        names = (
            ["grid.toml"] if len(texts) == 1 else [f"grid-{number}.toml" for number, _ in enumerate(texts, 1)]
        )
        self.files = dict(zip(names, texts, strict=True))
        """Name of a file -> its text."""
        self._content = {name: tomllib.loads(text) for name, text in self.files.items()}

    def command(self, records: Sequence[Record], method_of: Mapping[str, str]) -> str | None:
        """Return the ``expunge bench`` command for the cell of ``records``, None where no grid has them all.

        Args:
            records: of one method and task.
            method_of: label under which a record is listed -> name of its method.
        """
        first = records[0]
        method = method_of[first.method]
        file = next(
            (
                name
                for name, content in self._content.items()
                if all(_has(content, record, method) for record in records)
            ),
            None,
        )
        if file is None:
            return None
        only = [f"method={method}"]
        if "recipes" in self._content[file]:
            only.append(f"model={first.model}")
        if first.regularity is not None and first.discovery is not None:
            name = regularity_name(first.regularity)  # rounds what has no name
            exact = name if regularity_value(name) == first.regularity else repr(first.regularity)
            only += [f"regularity={exact}", f"discovery={first.discovery!r}"]
        else:
            only.append(f"task={first.task}")
            settings = {name: value for name, value in first.task_settings.items() if name != "seed"}
            only += [
                f"{name}={'+'.join(map(str, value)) if isinstance(value, list) else value}"
                for name, value in settings.items()
                if value is not None and not isinstance(value, bool)
            ]
        words = ["expunge", "bench", file, "--only", ",".join(only)]
        if device := first.provenance.get("device"):
            words += ["--device", device]
        return shlex.join(words)


def _has(content: Mapping[str, Any], record: Record, method: str) -> bool:
    """Whether a grid runs a record's method, with its settings, on its data, with its seed."""
    settings = {key: value for key, value in record.settings.items() if value is not None}
    setups = [content, *content.get("recipes", ())]
    return (
        method in content["run"]
        and record.seed in content["seeds"]
        and record.data.startswith(content["data"]["name"])
        and any(setup.get("methods", {}).get(method, {}) == settings for setup in setups)
    )
