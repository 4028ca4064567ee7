from __future__ import annotations

from pathlib import Path

import pytest

from expunge.benchmark.grid import Grid
from expunge.benchmark.plan import DataChoice
from expunge.errors import InvalidInput
from expunge.tasks.corruption import CorruptionTask
from expunge.tasks.forgetting import ForgetClasses, ForgetRandom

WHOLE = """
run = ["none", "natmu"]
seeds = [0, 2]
[data]
name = "digits"
n_unseen = 100
[[tasks]]
kind = "classes"
classes = [3, 1]
[[tasks]]
kind = "random"
share = 0.1
[[tasks]]
kind = "corruption"
regularity = "poison"
discovery = 0.5
[task]
n_corrupted = 50
[recipe]
epochs = 2
[methods."*"]
batch_size = 32
[methods.natmu]
delta = -0.1
"""


def test_a_whole_grid() -> None:
    grid = Grid.parse(WHOLE, "here")
    assert grid.data == DataChoice("digits", n_unseen=100)
    assert grid.tasks == (
        ForgetClasses(classes=(1, 3)),
        ForgetRandom(share=0.1),
        CorruptionTask(regularity=1.0, discovery=0.5, n_corrupted=50),
    )
    assert grid.recipe.epochs == 2
    assert [method.name for method in grid.methods] == ["none", "natmu"]
    assert grid.methods[1].settings()["delta"] == -0.1
    assert grid.methods[1].settings()["batch_size"] == 32
    assert grid.seeds == (0, 2)


def test_all_faults_are_told_at_once() -> None:
    text = """
run = ["natmuu", "finetune"]
seeds = ["one"]
speed = 3
[data]
nam = "digits"
[[tasks]]
kind = "clases"
[[tasks]]
kind = "random"
share = 2.0
[[tasks]]
kind = "random"
part = 0.1
[methods.finetune]
epoch = 3
"""
    with pytest.raises(InvalidInput) as caught:
        Grid.parse(text, "grid.toml")
    message = str(caught.value)
    assert message.startswith("grid.toml has 8 faults:\n")
    for part in (
        "unknown section 'speed'",
        "a table with at least a name is expected",
        "task 1: unknown kind 'clases'; did you mean 'classes'?",
        "task 2: the share to forget must lie in (0, 1), got 2.0",
        "task 3: 'random' has no setting 'part' (settings: seed, share)",
        "unknown method 'natmuu'; did you mean 'natmu'?",
        "method 'finetune' has no setting 'epoch'",
        "'seeds' must be a list of at least one of: whole numbers",
    ):
        assert part in message


def test_files(tmp_path: Path) -> None:
    (tmp_path / "grid.toml").write_text(WHOLE, encoding="utf-8")
    assert Grid.read(tmp_path / "grid.toml") == Grid.parse(WHOLE, "here")
    assert len(Grid.read("digits-forgetting").tasks) == 3
    with pytest.raises(InvalidInput, match=r"neither packaged \(.*digits-forgetting.*\) nor a file"):
        Grid.read("nowhere")
    with pytest.raises(InvalidInput, match="is not valid TOML"):
        Grid.parse("run = [", "here")
