"""One cell of a sweep as one flat record: what was run, what came out, what it cost."""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any

from expunge.errors import InvalidInput, StoreError

SCHEMA_VERSION: int = 4
"""1 demanded a place on the map of every record; 3 has claims, which an older expunge would not heed; 4 holds a
measurement and what stands beside it in one entry, where 3 had an entry NAME_retrained beside NAME."""
LEARNED_ENOUGH = 0.95
"""Share of the corrupted labels an original model must have learned for its cells to mean something."""
STATUSES = ("done", "failed", "skipped")
METRICS = ("healed", "healed_known", "healed_unknown", "utility", "uxh", "asr", "corruption_learned")

VALUE = "value"
BESIDE = ("low", "high", "retrained", "floor", "oracle")
"""What may stand beside the value of a measurement: its 95 % interval, the same number of a retrained model and of one
trained on the true labels, and how far two retrained models lie apart."""

# Metrics are means of zeros and ones; summing them batch by batch may overshoot by rounding.
_ROUNDING = 1e-6


@dataclass(frozen=True, kw_only=True)
class Record:
    """One cell of a sweep.

    Values are brought to plain Python types (NumPy numbers, 0-d tensors and tuples are converted), so a
    record read from the database equals the one that was added. A "done" record must hold finite numbers
    only; in a "failed" or "skipped" one a number that is not finite becomes None, and its entry is left
    out of ``log``.

    Args:
        key: content hash of the cell; the primary key.
        schema: version of the fields, :data:`SCHEMA_VERSION` when the record was made.
        status: "done", "failed" or "skipped".
        error: why it failed or was skipped; empty if there is nothing to say.
        data: name of the data set.
        task: kind of task: "corruption", or what good data is forgotten ("classes", "random", ...).
        task_settings: the task's fields; JSON.
        regularity: 0 (random labels) .. 0.5 (two classes exchanged) .. 1 (poison trigger); None where nothing
            is corrupted.
        discovery: fraction of the corrupted examples that is known, in [0, 1]; None likewise.
        n_corrupted: number of corrupted training examples.
        model: name of the architecture.
        method: name of the unlearning method in its table.
        settings: the method's hyperparameters as they were used; JSON.
        recipe: how the corrupted model was trained; JSON.
        oracle: whether the method saw what only an ideal one can see.
        seed: the repetition the other seeds are derived from.
        data_seed, training_seed, unlearning_seed: of the corruption, the training and the unlearning.
        task_key, model_key: content hashes of the corruption task and of the corrupted model's training.
        weights_key: key of the unlearned weights; empty if they were not saved.
        healed, healed_known, healed_unknown: healed fraction of all corrupted examples, of the known ones and of those
            never pointed out, in [0, 1].
        utility: accuracy on clean test examples, in [0, 1].
        uxh: utility times healed, in [0, 1].
        asr: fraction of triggered test examples that reach the attacker's class, in [0, 1].
        corruption_learned: fraction of the corrupted labels the model had learned, in [0, 1].
        metrics: further measurements: name -> "value" and what stands beside it, see :data:`BESIDE`; None where it
            is not defined; JSON. A number alone stands for its value.
        per_class: test accuracy of each class, None for a class without examples.
        seconds: wall time of the unlearning.
        sample_gradients: per-example gradients computed.
        peak_memory: bytes.
        parameters_before, parameters_during, parameters_after: number of parameters of the model handed in, at the
            most while unlearning, and of the model handed back.
        log: rows of the learning curve.
        provenance: versions of expunge and torch, device, dtype, host CPU count, time of creation (ISO, UTC).

    Raises:
        InvalidInput: a value of the wrong type or out of range, or a "done" record with a number that is
            not finite.
    """

    key: str
    schema: int = SCHEMA_VERSION
    status: str
    error: str = ""
    data: str
    task: str = "corruption"
    task_settings: dict[str, Any] = field(default_factory=dict)
    regularity: float | None = None
    discovery: float | None = None
    n_corrupted: int = 0
    model: str
    method: str
    settings: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    oracle: bool = False
    seed: int
    data_seed: int = 0
    training_seed: int = 0
    unlearning_seed: int = 0
    task_key: str = ""
    model_key: str = ""
    weights_key: str = ""
    healed: float | None = None
    healed_known: float | None = None
    healed_unknown: float | None = None
    utility: float | None = None
    uxh: float | None = None
    asr: float | None = None
    corruption_learned: float | None = None
    metrics: dict[str, dict[str, float | None]] = field(default_factory=dict)
    per_class: list[float | None] = field(default_factory=list)
    seconds: float | None = None
    sample_gradients: int | None = None
    peak_memory: int | None = None
    parameters_before: int | None = None
    parameters_during: int | None = None
    parameters_after: int | None = None
    log: list[dict[str, float]] = field(default_factory=list)
    provenance: dict[str, str] = field(default_factory=dict)

    @property
    def on_map(self) -> bool:
        """Whether the cell is a place on the map of regularity by discovery."""
        return self.regularity is not None and self.discovery is not None

    def number(self, name: str) -> float | None:
        """The value of a measurement, None where it was not made or is not defined."""
        return self.metrics.get(name, {}).get(VALUE)

    def flat_metrics(self) -> dict[str, float | None]:
        """The measurements in one row: NAME for a value, NAME_retrained and so on for what stands beside it."""
        return {
            name if part == VALUE else f"{name}_{part}": number
            for name, entry in self.metrics.items()
            for part, number in entry.items()
        }

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise InvalidInput(f"status {self.status!r} is unknown; use one of {', '.join(STATUSES)}")
        for declared in fields(self):
            object.__setattr__(self, declared.name, self._plain(declared))
        if not self.key:
            raise InvalidInput("the key of a record is empty; give the content hash of its cell")
        for name in ("regularity", "discovery", *METRICS):
            value = getattr(self, name)
            if value is None:
                continue
            if not -_ROUNDING <= value <= 1 + _ROUNDING:
                raise InvalidInput(
                    f"{name} is {value:g}; a fraction in [0, 1] was expected (divide a percentage by 100)"
                )
            object.__setattr__(self, name, min(max(value, 0.0), 1.0))

    def _plain(self, declared: Field[Any]) -> Any:
        name, value = declared.name, getattr(self, declared.name)
        kind, optional = KINDS[name], "None" in str(declared.type)
        if value is None and optional and kind != "json":
            return None
        try:
            if name == "per_class":
                return [None if item is None else self._finite(name, float(item)) for item in value]
            if name == "log":
                return [self._finite_row(row) for row in value]
            if kind == "json":
                made = json.loads(json.dumps(value, allow_nan=False))
                if not isinstance(made, dict):
                    raise TypeError(f"a dict is needed, not {type(value).__name__}")
                return {key: _entry(entry) for key, entry in made.items()} if name == "metrics" else made
            if kind == "float":
                return self._finite(name, float(value))
            if kind == "int":
                whole = operator.index(value)
                if not -(2**63) <= whole < 2**63:
                    raise ValueError("a database column holds 64 bits")
                return whole
            if kind == "bool":
                if value not in (0, 1):
                    raise ValueError("a truth value is needed")
                return bool(value)
            if not isinstance(value, str):
                raise TypeError(f"a string is needed, not {type(value).__name__}")
            # An error message may quote bytes of a file name that no database encodes, or a NUL, which
            # PostgreSQL refuses.
            return value.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\0")
        except InvalidInput:
            raise
        except (TypeError, ValueError, AttributeError) as error:
            form = ", a dict or list of plain JSON values without NaN and inf" if kind == "json" else ""
            raise InvalidInput(
                f"{name} must be {declared.type}{form}, got {value!r:.80}: {error}; convert it first"
            ) from error

    def _finite(self, name: str, value: float) -> float | None:
        if math.isfinite(value):
            return value
        if self.status == "done":
            raise InvalidInput(
                f"{name} is {value}, but a done record holds finite numbers only; "
                'store the cell as "failed" with the reason in error'
            )
        return None

    def _finite_row(self, row: Mapping[str, Any]) -> dict[str, float]:
        checked = {str(name): self._finite(f"log {name!r}", float(value)) for name, value in row.items()}
        return {name: value for name, value in checked.items() if value is not None}

    def to_row(self) -> dict[str, Any]:
        """Return the fields by name, as columns of a database row."""
        return {name: getattr(self, name) for name in KINDS}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Record:
        """Rebuild a record from a database row, also from one that an older schema wrote.

        Unknown columns are ignored; a column that is missing or NULL gets the field's default.

        Raises:
            StoreError: the row has a newer schema, lacks a column without default, or is damaged.
        """
        schema = row.get("schema")
        if isinstance(schema, int) and schema > SCHEMA_VERSION:
            raise StoreError(
                f"record {row.get('key')!r} has schema {schema}, this expunge reads up to {SCHEMA_VERSION}; "
                "upgrade expunge"
            )
        values = {name: row[name] for name in KINDS if row.get(name) is not None}
        if isinstance(schema, int) and schema < 4 and isinstance(values.get("metrics"), dict):
            values["metrics"] = _folded(values["metrics"])
        lacking = [name for name in REQUIRED if name not in values]
        if lacking:
            raise StoreError(
                f"record {row.get('key')!r} has no value for {', '.join(lacking)}; every record needs "
                "them: restore a copy of the database or delete this row"
            )
        try:
            return cls(**values)
        except InvalidInput as error:
            raise StoreError(
                f"record {row.get('key')!r} is damaged: {error}; restore a copy of the database or "
                "delete this row"
            ) from error


def _entry(entry: Any) -> dict[str, float | None]:
    """A measurement as its parts."""
    parts = entry if isinstance(entry, dict) else {VALUE: entry}
    unknown = set(parts) - {VALUE, *BESIDE}
    numbers = all(part is None or type(part) in (int, float) for part in parts.values())
    if unknown or not numbers:
        raise TypeError(f"a measurement has numbers called {VALUE}, {', '.join(BESIDE)}, not {entry!r:.80}")
    return {VALUE: None, **parts}


def _folded(metrics: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The measurements of a schema in which NAME_retrained stood beside NAME."""
    found: dict[str, dict[str, Any]] = {}
    for name, value in metrics.items():
        stem, _, part = name.rpartition("_")
        if part in BESIDE and stem in metrics:
            found.setdefault(stem, {})[part] = value
        else:
            found.setdefault(name, {})[VALUE] = value
    return found


def _kind(declared: Field[Any]) -> str:
    head = str(declared.type).partition("[")[0].partition(" ")[0]
    return "json" if head in ("dict", "list") else head


KINDS: dict[str, str] = {declared.name: _kind(declared) for declared in fields(Record)}
"""Field name -> "str", "int", "float", "bool" or "json", in the order of the fields."""

REQUIRED: tuple[str, ...] = tuple(
    declared.name
    for declared in fields(Record)
    if declared.default is MISSING and declared.default_factory is MISSING
)
"""Fields without a default: no record is readable without them."""
