"""A short run of the benchmark on pretrained networks: a few rows and one epoch of each case."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "pretrained.py"
CASES = ("efficientnet_noise", "efficientnet_poison", "minilm_trec", "minilm_sst2", "adult", "vit_fashion")
Lines = list[dict[str, Any]]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, *words], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Lines:
    """What all cases print, and then one of them again."""
    folder = os.environ.get("EXPUNGE_DATA")
    for name in ("cifar10", "cifar_n", "text", "tabular", "fashion_mnist"):
        if folder is None or not (Path(folder) / name).is_dir():
            pytest.skip(f"EXPUNGE_DATA has no folder {name}")
    pytest.importorskip("transformers")
    work = tmp_path_factory.mktemp("pretrained")
    given = ("--quick", "--methods", "finetune", "--work", str(work), "--out", str(work / "out.jsonl"))
    done = run(*CASES, "adult", *given)
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in (work / "out.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_each_case_prints_a_line_for_every_model(case: str, lines: Lines) -> None:
    found = {line["model"]: line for line in lines if line["case"] == case}
    early = ["early", "early finetune"] if case == "adult" else []
    assert sorted(found) == sorted(["damaged", "retrain", "retrain_short", "oracle", "finetune", *early])
    assert found["finetune"]["share_of_retraining_seconds"] > 0
    for line in found.values():
        bad = {
            name: int(line[name].partition("/")[2])
            for name in ("healed_known", "healed_unknown", "as_stored")
        }
        assert bad["healed_known"] + bad["healed_unknown"] == bad["as_stored"] == line["bad"]
        assert bad["healed_known"] == line["listed"] > 0
        assert ("attack" in line) == (case in ("efficientnet_poison", "minilm_sst2"))


def test_a_trained_model_is_used_again(lines: Lines) -> None:
    trained = [line for line in lines if line["case"] == "adult" and "finetune" not in line["model"]]
    first, second = trained[:5], trained[5:]
    for before, after in zip(first, second, strict=True):
        assert after == {**before, "trained_earlier": True}


def test_a_case_it_does_not_know() -> None:
    assert "there is no case 'minilm'; expected some of efficientnet_noise" in run("minilm").stderr
