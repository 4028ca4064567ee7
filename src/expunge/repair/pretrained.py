"""A repaired model of ``transformers`` as a folder that ``from_pretrained`` loads."""

from __future__ import annotations

from pathlib import Path

import expunge
from expunge.inputs.specification import Specification
from expunge.repair.job import Job

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")


def pretrained_folder(job: Job) -> Path | None:
    """Return the folder of ``transformers`` that the architecture of ``job`` is read from, if it is one."""
    kind, _, name = Specification.parse(job.arch).target.partition(":")
    folder = Path(name).expanduser()
    return folder if kind == "transformers" and (folder / "config.json").is_file() else None


def checkpoint_name(job: Job) -> str:
    """Return the name of the repaired file: the one ``from_pretrained`` looks for, where it is to load the folder."""
    if pretrained_folder(job) is None:
        return f"checkpoint{job.checkpoint.suffix}"
    return _WEIGHTS[0] if job.checkpoint.suffix == ".safetensors" else _WEIGHTS[1]


def pretrained_files(job: Job, repaired: str) -> dict[str, bytes]:
    """Return what belongs beside the weights, name -> content: configuration, tokenizer, and a model card.

    Args:
        job: what was asked for.
        repaired: what was done, in sentences, for the card.

    Raises:
        OSError: a file of the folder cannot be read.
    """
    folder = pretrained_folder(job)
    if folder is None:
        return {}
    found = {
        path.name: path.read_bytes()
        for path in sorted(folder.iterdir())
        if path.is_file()
        and path.suffix in (".json", ".txt", ".model")
        and not path.name.endswith(".index.json")
    }
    card = folder / "README.md"
    before = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    note = (
        f"## Repaired\n\n{repaired} By expunge {expunge.__version__}; report.html holds what was measured.\n"
    )
    return {**found, "README.md": f"{before.rstrip()}\n\n{note}".lstrip().encode()}
