"""Audit an unlearned model from files: read and check, train references, measure, judge."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from expunge.choice import Purpose
from expunge.detection.out_of_sample import short_training
from expunge.errors import InvalidInput
from expunge.evaluation.document import as_document
from expunge.evaluation.evidence import Audit, audit
from expunge.evaluation.facts import Labels
from expunge.evaluation.references import References, check_made_from, train_references
from expunge.fingerprint import fingerprint
from expunge.inputs.architecture import build_architecture
from expunge.inputs.checkpoint import read_checkpoint
from expunge.inputs.known_truth import read_true_labels
from expunge.inputs.provenance import arch_hash, data_hash, file_hash
from expunge.inputs.sources import load_validation_data
from expunge.inputs.training_data import DataOptions
from expunge.repair.job import Report
from expunge.repair.loaded import Loaded, build_loaded, load
from expunge.seeding import global_generator
from expunge.store.atomic import write_output
from expunge.store.weights import WeightStore
from expunge.training.recipe import Recipe

_LABELS: Mapping[Purpose | None, Labels | None] = {"heal": "wrong", "forget": "right", None: None}


@dataclass(frozen=True, kw_only=True)
class AuditJob:
    """An audit to be made.

    Args:
        original: file of the model before unlearning.
        unlearned: file of the model in question.
        arch: the network, one for all models, see ``build_architecture``.
        data: what the original was trained on, see ``load_training_data``.
        forget: what was to be forgotten, see ``read_forget_list``.
        validation: data that no model was trained on.
        options: how data is read, and onto which device.
        retrained: file of a model trained without the forget set.
        retrained_again: another one, of another seed.
        oracle: file of a model trained on everything with the true labels.
        truth: true labels, see ``read_true_labels``.
        train_reference: train the retrained model twice, and with ``truth`` the oracle.
        recipe: of the original's training, for ``train_reference``; by default a short training by AdamW.
        references: folder that keeps trained references; by default "references" beside the original.
        purpose: "heal" where the given labels of the list count as wrong, "forget" where they are right; by default
            ``truth`` says, else it is not known.
        quick: leave out the metrics that take long.
        seed: of the references that are trained.

    Raises:
        InvalidInput: references that are both trained and given, or a recipe for none.
    """

    original: Path
    unlearned: Path
    arch: str
    data: str
    forget: str
    validation: str
    options: DataOptions = field(default_factory=DataOptions)
    retrained: Path | None = None
    retrained_again: Path | None = None
    oracle: Path | None = None
    truth: str | None = None
    train_reference: bool = False
    recipe: Recipe | None = None
    references: Path | None = None
    purpose: Purpose | None = None
    quick: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.train_reference and (self.retrained or self.retrained_again or self.oracle):
            raise InvalidInput(
                "--train-reference trains what --retrained, --retrained-again and --oracle name: give it, or them"
            )
        if self.purpose not in _LABELS:
            raise InvalidInput(f"--purpose takes heal or forget, got {self.purpose!r}")
        if self.recipe is not None and not self.train_reference:
            raise InvalidInput("--recipe says how references are trained: give --train-reference too")

    @property
    def files(self) -> dict[str, Path]:
        """Role -> checkpoint, of those that are given."""
        given = {
            "original": self.original, "unlearned": self.unlearned, "retrained": self.retrained,
            "second_retrained": self.retrained_again, "oracle": self.oracle,
        }  # fmt: skip
        return {role: path.expanduser() for role, path in given.items() if path is not None}

    @property
    def kept(self) -> Path:
        """The folder that keeps trained references."""
        return (self.references or self.original.with_name("references")).expanduser()


@dataclass(frozen=True)
class AuditOutcome:
    """What came of an audit.

    Args:
        job: what was asked for.
        audit: verdict and numbers.
        references: those that were trained or kept, if any were to be.
        notes: what was decided in reading, and what is doubtful.
        about: what the audit was made from, for its file.
    """

    job: AuditJob
    audit: Audit
    references: References | None
    notes: tuple[str, ...]
    about: Mapping[str, Any]

    def write(self, path: Path) -> None:
        """Write every number to ``path`` as JSON, whole or not at all.

        Raises:
            StoreError: the file cannot be written.
        """
        content = json.dumps(as_document(self.audit, self.about), indent=2, allow_nan=False)
        write_output(path, (content + "\n").encode(), remedy="choose another folder with --out")


def audit_files(job: AuditJob, report: Report = lambda share, doing: None) -> AuditOutcome:
    """Carry out ``job``; nothing but trained references is written.

    Measured in float32: in bfloat16 confidences near 1 would be equal, and attacks blind.

    Raises:
        CheckFailed: the original does not belong to the data.
        InvalidInput: anything that cannot be used, or a reference that was made for other data or another list.
        Diverged: the training of a reference became NaN.
        StoreError: a checkpoint cannot be read, or a reference not be kept.
    """
    report(0.0, "reading")
    files = job.files
    loaded = load(files["original"], job.arch, job.data, job.forget, job.options)
    digest = data_hash(loaded.data)
    models = {"original": loaded.model}
    for role, path in files.items():
        if role != "original":
            models[role], metadata = _model(path, job.arch, loaded)
            if role != "unlearned":
                check_made_from(metadata, digest, loaded.forget.positions, str(path))
    validation = load_validation_data(job.validation, job.options, loaded.data)
    true_labels = None if job.truth is None else read_true_labels(job.truth, loaded.data)
    trained, begun = None, 0.0
    if job.train_reference:
        begun = 0.5
        trained = _train(job, loaded, digest, true_labels, report, begun)
        models |= trained.models
    found = audit(
        models["original"],
        models["unlearned"],
        loaded.data.examples,
        loaded.forget.positions,
        validation,
        retrained=models.get("retrained"),
        second_retrained=models.get("second_retrained"),
        oracle=models.get("oracle"),
        true_labels=true_labels,
        labels=_LABELS[job.purpose],
        classes=loaded.data.classes,
        numerics=replace(loaded.numerics, dtype="float32"),
        quick=job.quick,
        progress=lambda share: report(begun + (1 - begun) * share, "measuring"),
    )
    doubts = [f"{each.where} {each.what}" for each in loaded.check.findings if each.level == "warning"]
    notes = (*loaded.data.notes, *loaded.forget.notes, *doubts)
    return AuditOutcome(job, found, trained, notes, _about(job, loaded, digest, trained))


def _model(path: Path, arch: str, loaded: Loaded) -> tuple[nn.Module, Mapping[str, str]]:
    checkpoint = read_checkpoint(path)
    model, _ = build_loaded(checkpoint, arch, loaded.data)
    return loaded.numerics.place(model), checkpoint.metadata


def _train(
    job: AuditJob, loaded: Loaded, digest: str, true_labels: Tensor | None, report: Report, until: float
) -> References:
    """Train the references that are not kept yet."""
    data, arch = loaded.data, job.arch

    def fresh(generator: torch.Generator) -> nn.Module:
        with global_generator(generator):
            return build_architecture(arch, shape=data.shape, n_classes=len(data.classes))

    return train_references(
        fresh,
        data.examples,
        loaded.forget.positions,
        recipe=job.recipe or short_training(len(data) - len(loaded.forget.positions), augment=True),
        numerics=loaded.numerics,
        kept=WeightStore(job.kept),
        architecture=arch_hash(arch),
        data=digest,
        true_labels=true_labels,
        seed=job.seed,
        progress=lambda share: report(until * share, f"training references, kept in {job.kept}"),
    )


def _about(job: AuditJob, loaded: Loaded, digest: str, trained: References | None) -> dict[str, Any]:
    made = None
    if trained is not None:
        made = {"seconds": dict(trained.seconds), "trained_now": list(trained.trained)}
    return {
        "made_from": {
            "arch": job.arch,
            "checkpoints": {
                role: {"path": str(path), "sha256": file_hash(path)} for role, path in job.files.items()
            },
            "data": job.data,
            "data_hash": digest,
            "forget": job.forget,
            "forget_hash": fingerprint(loaded.forget.positions),
            "validation": job.validation,
            "truth": job.truth,
            "numerics": asdict(loaded.numerics) | {"dtype": "float32"},
        },
        "references": made,
    }
