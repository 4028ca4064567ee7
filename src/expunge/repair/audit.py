"""Audit an unlearned model: from what the user names to what is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from expunge.data.examples import Examples
from expunge.detection.out_of_sample import short_training
from expunge.errors import InvalidInput
from expunge.evaluation.evidence import Audit, audit
from expunge.evaluation.facts import Labels
from expunge.evaluation.references import References, check_made_from, train_references
from expunge.fingerprint import fingerprint
from expunge.inputs.architecture import build_architecture
from expunge.inputs.checkpoint import read_checkpoint
from expunge.inputs.checkpoint_weights import load_weights
from expunge.inputs.forget_list import ForgetList, read_forget_list
from expunge.inputs.known_truth import read_true_labels
from expunge.inputs.preflight import preflight
from expunge.inputs.provenance import code_hash, data_hash, file_hash
from expunge.inputs.sources import load_training_data, load_validation_data
from expunge.inputs.training_data import DataOptions, TrainingData
from expunge.repair.job import read_recipe
from expunge.seeding import global_generator
from expunge.store.weights import WeightStore
from expunge.training.loop import Progress
from expunge.training.numerics import Numerics


@dataclass(frozen=True)
class Models:
    """The files of the models, and what they are files of.

    Args:
        files: role -> checkpoint.
        arch: the network, one for all.
    """

    files: Mapping[str, Path]
    arch: str


@dataclass(frozen=True)
class Prepared:
    """Everything an audit needs, read and checked.

    Args:
        models: role -> model with its weights.
        files: role -> checkpoint.
        arch: the network.
        data: the training data.
        data_hash: of it.
        forget: the listed rows.
        validation: examples that no model was trained on.
        true_labels: int64 (N,), negative where not known, if some are.
        numerics: where to compute.
        notes: what was decided in reading, and what is doubtful.
    """

    models: Mapping[str, nn.Module]
    files: Mapping[str, Path]
    arch: str
    data: TrainingData
    data_hash: str
    forget: ForgetList
    validation: Examples
    true_labels: Tensor | None
    numerics: Numerics
    notes: tuple[str, ...]


def prepare(
    models: Models, data: str, forget: str, validation: str, truth: str | None, options: DataOptions
) -> Prepared:
    """Read and check everything that is named; nothing is written.

    Raises:
        InvalidInput: anything that cannot be used, an original that does not belong to the data, or a reference that
            was made for other data or another list.
        StoreError: a checkpoint cannot be read.
    """
    loaded = load_training_data(data, options)
    numerics = Numerics.for_inputs(options.device, loaded.shape)
    listed = read_forget_list(forget, loaded)
    made = {role: _load(path, models.arch, loaded, numerics) for role, path in models.files.items()}
    check = preflight(made["original"][0], loaded, listed.positions, numerics, fit_reading=options.open)
    if check.errors:
        said = "; ".join(f"{found.where} {found.what}: {found.remedy}" for found in check.errors)
        raise InvalidInput(f"{models.files['original']} does not belong to this data: {said}")
    digest = data_hash(check.data)
    for role, (_, metadata) in made.items():
        if role not in ("original", "unlearned"):
            check_made_from(metadata, digest, listed.positions, str(models.files[role]))
    doubts = [f"{found.where} {found.what}" for found in check.findings if found.level == "warning"]
    return Prepared(
        models={role: model for role, (model, _) in made.items()},
        files=models.files,
        arch=models.arch,
        data=check.data,
        data_hash=digest,
        forget=listed,
        validation=load_validation_data(validation, options, check.data),
        true_labels=None if truth is None else read_true_labels(truth, check.data),
        numerics=numerics,
        notes=(*loaded.notes, *listed.notes, *doubts),
    )


def _load(
    path: Path, arch: str, data: TrainingData, numerics: Numerics
) -> tuple[nn.Module, Mapping[str, str]]:
    checkpoint = read_checkpoint(path)
    model = build_architecture(arch, shape=data.shape, n_classes=len(data.classes))
    load_weights(model, checkpoint)
    return numerics.place(model), checkpoint.metadata


def train(prepared: Prepared, recipe: Sequence[str], kept: Path, seed: int, progress: Progress) -> References:
    """Train the references that are not kept yet, by the recipe that ``FIELD=VALUE`` texts give.

    Raises:
        InvalidInput: an unknown field of the recipe.
        Diverged: a training became NaN.
        StoreError: the folder cannot be read or written.
    """
    data, arch = prepared.data, prepared.arch
    n_retain = len(data) - len(prepared.forget.positions)
    source = Path(arch.partition("?")[0].rpartition(":")[0]).expanduser()
    own = file_hash(source) if source.suffix == ".py" and source.is_file() else ""

    def fresh(generator: torch.Generator) -> nn.Module:
        with global_generator(generator):
            return build_architecture(arch, shape=data.shape, n_classes=len(data.classes))

    return train_references(
        fresh,
        data.examples,
        prepared.forget.positions,
        recipe=read_recipe(recipe) or short_training(n_retain, augment=True),
        numerics=prepared.numerics,
        kept=WeightStore(kept),
        architecture=fingerprint(arch, own, code_hash()),
        data=prepared.data_hash,
        true_labels=prepared.true_labels,
        seed=seed,
        progress=progress,
    )


def measure(
    prepared: Prepared, trained: References | None, labels: Labels | None, quick: bool, progress: Progress
) -> Audit:
    """Carry the audit out, in float32: in bfloat16 confidences near 1 would be equal, and attacks blind."""
    models = {**prepared.models, **(trained.models if trained else {})}
    return audit(
        models["original"],
        models["unlearned"],
        prepared.data.examples,
        prepared.forget.positions,
        prepared.validation,
        retrained=models.get("retrained"),
        second_retrained=models.get("second_retrained"),
        oracle=models.get("oracle"),
        true_labels=prepared.true_labels,
        labels=labels,
        classes=prepared.data.classes,
        numerics=replace(prepared.numerics, dtype="float32"),
        quick=quick,
        progress=progress,
    )


def describe(
    prepared: Prepared, trained: References | None, data: str, forget: str, validation: str, truth: str | None
) -> dict[str, Any]:
    """Return what the audit was made from, for its file."""
    made = None
    if trained is not None:
        made = {"seconds": dict(trained.seconds), "trained_now": list(trained.trained)}
    return {
        "made_from": {
            "arch": prepared.arch,
            "checkpoints": {
                role: {"path": str(path), "sha256": file_hash(path)} for role, path in prepared.files.items()
            },
            "data": data,
            "data_hash": prepared.data_hash,
            "forget": forget,
            "forget_hash": fingerprint(prepared.forget.positions),
            "validation": validation,
            "truth": truth,
            "numerics": asdict(prepared.numerics) | {"dtype": "float32"},
        },
        "references": made,
    }
