"""``expunge.clean`` and ``expunge.audit``: the commands of these names, from Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from expunge.errors import UnknownName, near_miss

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from expunge.inputs.training_data import DataOptions


def clean(
    checkpoint: Path | str, arch: str, data: str, forget: str, *, out: Path | str = "cleaned", **options: Any
) -> pd.DataFrame:
    """Repair a trained model as ``expunge clean`` does, and return what came of every training row.

    The folder ``out`` gets the checkpoint and the reports. ``attrs`` of the table holds "verdict" (the grade),
    "sentence" and "checkpoint" (the path of the file that was written).

    Args:
        checkpoint: the trained model's file; it is only read.
        arch: the network, such as "net.py:Net".
        data: what it was trained on: a file, a folder, or a data set by name.
        forget: the list of bad rows.
        out: folder of the results; it must be new or empty.
        options: of the command: fields of :class:`expunge.repair.job.Job` and of
            :class:`expunge.inputs.training_data.DataOptions`, such as ``method="rem"``, ``recipe=Recipe(...)``,
            ``validation="test"`` or ``classes=("cat", "dog")``.

    Returns:
        One line a training row, in its order: ``name`` where rows have names, ``given_label``, ``listed``, ``flagged``
        (named by the method), ``score`` (of the method; higher is more suspicious, NaN where it gives none),
        ``before`` and ``after`` (the class that the model gives).

    Raises:
        UnknownName: an option that neither has.
        ExpungeError: as the command's errors say.
    """
    from expunge.repair.clean import clean as repair
    from expunge.repair.clean_files import write_files
    from expunge.repair.in_words import one_sentence
    from expunge.repair.job import Job
    from expunge.repair.output_folder import output_folder
    from expunge.repair.prepare import prepare
    from expunge.result import frame_of_rows

    reading, more = _split_options(options, Job)
    job = Job(
        checkpoint=Path(checkpoint).expanduser(), arch=arch, data=data, forget=forget, options=reading, **more
    )
    with output_folder(out) as aside:
        prepared = prepare(job)
        cleaned = repair(prepared, aside, lambda share, doing: None)
        write_files(prepared, cleaned, aside)
    read = prepared.data

    def names(labels: Tensor) -> list[str | None]:  # none for a model that gave NaN
        return [read.classes[label] if label >= 0 else None for label in labels.tolist()]

    table = frame_of_rows(
        ({"name": list(read.names)} if read.names else {}) | {"given_label": names(read.examples.labels)},
        prepared.forget.positions,
        cleaned.found,
        names(cleaned.before.predictions),
        names(cleaned.after.predictions),
    )
    table.attrs |= {
        "verdict": cleaned.audit.verdict.grade,
        "sentence": one_sentence(prepared, cleaned),
        "checkpoint": str(Path(out) / cleaned.checkpoint),
    }
    return table


def audit(
    original: Path | str,
    unlearned: Path | str,
    arch: str,
    data: str,
    forget: str,
    validation: str,
    **options: Any,
) -> pd.DataFrame:
    """Audit an unlearned model as ``expunge audit`` does, and return every measurement.

    ``attrs`` of the table holds "verdict" (the grade), "findings" (sentences) and "advice".

    Args:
        original: file of the model before unlearning.
        unlearned: file of the model in question.
        arch: the network, one for all models.
        data: what the original was trained on.
        forget: what was to be forgotten.
        validation: data that no model was trained on.
        options: of the command: fields of :class:`expunge.repair.audit.AuditJob` and of
            :class:`expunge.inputs.training_data.DataOptions`, such as ``retrained="retrained.pt"``.

    Returns:
        One line a measurement: ``measure``, ``better``, and the value for each model: ``original``, ``unlearned`` and
        those that were given; NaN where it is not defined, ``because`` says why.

    Raises:
        UnknownName: an option that neither has.
        ExpungeError: as the command's errors say.
    """
    import pandas as pd

    from expunge.repair.audit import AuditJob, audit_files

    reading, more = _split_options(options, AuditJob)
    job = AuditJob(
        original=Path(original), unlearned=Path(unlearned), arch=arch, data=data, forget=forget,
        validation=validation, options=reading, **more,
    )  # fmt: skip
    found = audit_files(job).audit
    roles = found.facts.roles
    table = pd.DataFrame(
        {"measure": row.name, "better": row.metric.better}
        | {role: row.value(role) for role in roles}
        | {"because": row.because}
        for row in found.rows
    )
    table.attrs |= {
        "verdict": found.verdict.grade,
        "findings": [finding.sentence for finding in found.verdict.findings],
        "advice": found.verdict.advice,
    }
    return table


def _split_options(options: Mapping[str, Any], job: Any) -> tuple[DataOptions, dict[str, Any]]:
    """Return the options of reading data, and those of the job; one that neither has is an error."""
    from expunge.inputs.training_data import DataOptions
    from expunge.training.numerics import Numerics

    of_job = {entry.name for entry in fields(job)} - {"options"}
    of_data = {entry.name for entry in fields(DataOptions)} - of_job
    for name in options:
        if name not in of_data | of_job:
            raise UnknownName(f"there is no option {name!r:.100}{near_miss(name, of_data | of_job)}")
    paths = {entry.name for entry in (*fields(DataOptions), *fields(job)) if "Path" in str(entry.type)}
    given: dict[str, Any] = {
        name: Path(value) if name in paths and value else value for name, value in options.items()
    }
    if "device" in of_data:  # where a job does not say it, the data are read onto the device of the work
        given["device"] = Numerics.choose(given.get("device")).device
    reading = DataOptions(**{name: value for name, value in given.items() if name in of_data})
    return reading, {name: value for name, value in given.items() if name in of_job}
