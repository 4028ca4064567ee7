"""What a person decided, kept in the list that ``expunge clean`` takes."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple, cast

from expunge.errors import DataError, InvalidInput, StoreError
from expunge.review.listing import Suspect
from expunge.store.atomic import write_output
from expunge.store.spreadsheet import csv_text, from_text

Verdict = Literal["bad", "good"]


class Decision(NamedTuple):
    """``verdict``, and the number of the true label where it was given."""

    verdict: Verdict
    label: int | None = None


class Decisions:
    """Decisions by row, each written as soon as it is taken.

    The file has a line for each row that is decided: ``index``, ``name``, ``is_label_issue`` (True for bad ones),
    ``given_label``, ``true_label`` (empty where it is not known). Known rows count as bad until somebody says
    otherwise.

    Args:
        path: of the file; what it holds already is taken over.
        suspects: the list.
        classes: names of the classes.

    Raises:
        DataError: the file holds something else, or rows that are not in the list.
        StoreError: it cannot be read.
    """

    def __init__(self, path: Path, suspects: Sequence[Suspect], classes: Sequence[str]) -> None:
        self.path, self._suspects, self._classes = path, suspects, classes
        self._by_index = {suspect.index: suspect for suspect in suspects}
        self.taken: dict[int, Decision] = {
            suspect.index: Decision("bad") for suspect in suspects if suspect.known
        }
        if path.exists():
            self.taken = self._read()

    def decide(self, index: int, verdict: str | None, label: int | None = None) -> None:
        """Take a decision, or back with ``None``, and write the file.

        Raises:
            InvalidInput: a row that is not in the list, no verdict, or no label.
            StoreError: the file cannot be written.
        """
        if index not in self._by_index:
            raise InvalidInput(f"row {index} is not in the list")
        if verdict not in ("bad", "good", None) or not (label is None or 0 <= label < len(self._classes)):
            raise InvalidInput(
                f"a decision is bad, good or none, with a label, got {verdict!r} and {label!r}"
            )
        if verdict is None:
            self.taken.pop(index, None)
        else:
            given = self._by_index[index].given
            if label is not None:  # a label says it all
                verdict = "good" if label == given else "bad"
            self.taken[index] = Decision(cast(Verdict, verdict), given if verdict == "good" else label)
        self.save()

    def save(self) -> None:
        """Write the file; it is whole or as it was.

        Raises:
            StoreError: it cannot be written.
        """
        named = ["name"] if any(suspect.name for suspect in self._suspects) else []
        rows: list[Sequence[object]] = [["index", *named, "is_label_issue", "given_label", "true_label"]]
        for suspect in self._suspects:
            if (decision := self.taken.get(suspect.index)) is not None:
                name = [suspect.name] if named else []
                true = "" if decision.label is None else self._classes[decision.label]
                bad = decision.verdict == "bad"
                rows.append([suspect.index, *name, bad, self._classes[suspect.given], true])
        write_output(self.path, csv_text(rows).encode("utf-8"), remedy="name another file with --out")

    def _read(self) -> dict[int, Decision]:
        numbers = {name: number for number, name in enumerate(self._classes)}
        found = {}
        try:
            with self.path.open(encoding="utf-8", newline="") as file:
                for line in csv.DictReader(file):
                    index, true = int(line["index"]), from_text(line["true_label"])
                    if index not in self._by_index:
                        raise DataError(
                            f"{self.path} holds row {index}, which is not in this list; move it away, or name another "
                            "file with --out"
                        )
                    bad = {"True": True, "False": False}[line["is_label_issue"]]
                    found[index] = Decision("bad" if bad else "good", numbers[true] if true else None)
        except OSError as error:
            raise StoreError(f"{self.path} cannot be read: {error}; check its permissions") from error
        except DataError:
            raise
        except (KeyError, ValueError, TypeError) as error:
            raise DataError(
                f"{self.path} is no list of decisions ({type(error).__name__}: {error}); move it away, or name another "
                "file with --out"
            ) from error
        return found
