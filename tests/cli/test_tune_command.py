from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from torch import nn
from typer.testing import CliRunner, Result

from expunge.cli import app
from expunge.cli.tune import replace_table
from expunge.data.synthetic import learnable_images
from expunge.errors import ExpungeError, InvalidInput, UnknownName
from expunge.methods.base import Method, Needs, Request, searched
from expunge.sweep.grid import Grid
from expunge.sweep.preset import Preset

TOY = f"{__name__}:Toy"
GRID = """# a grid of mine
run = ["none"]
seeds = [0, 1]

[[tasks]]
kind = "classes"
classes = [1]

[recipe]   # small
model = "expunge.models.mlp:MLP"
model_settings = { hidden = 8, activation = "relu" }
epochs = 3
batch_size = 16
augment = false

[methods."*"]
fixed = true

# about finetune
[methods.finetune]
lr = 0.5   # mine
"""


@dataclass(frozen=True, kw_only=True)
class Toy(Method):
    """Lower the forgotten classes' bias."""

    name = "toy"
    needs = Needs.FORGET

    push: float = searched(0.5, 0.1, 100.0, log=True)
    fixed: bool = False

    def unlearn(self, model: nn.Module, request: Request) -> nn.Module:
        model.get_parameter("head.bias").data[request.forget.labels.unique()] -= self.push
        return model


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    made = learnable_images(96, 64)
    np.savez(
        tmp_path / "tiny.npz",
        images=made.train_images.numpy(),
        labels=made.train_labels.numpy(),
        test_images=made.test_images.numpy(),
        test_labels=made.test_labels.numpy(),
    )
    path = tmp_path / "grid.toml"
    path.write_text(f"{GRID}\n[data]\nname = '{tmp_path / 'tiny.npz'}'\n", encoding="utf-8")
    return path


def invoke(*arguments: str | Path) -> Result:
    words = ["tune", *(str(argument) for argument in arguments)]
    return CliRunner().invoke(app, words, env={"COLUMNS": "160"})


def test_a_study_is_shown_and_written(grid: Path) -> None:
    text = grid.read_text(encoding="utf-8")
    common = (TOY, "--grid", grid, "--device", "cpu", "--tuning-seeds", "7,8")
    result = invoke(*common, "--trials", "4", "--write", grid)
    assert result.exit_code == 0, (result.output, result.exception)
    assert "validation accuracy x forgetting quality" in result.output
    assert "untuned" in result.output
    assert "original model, seed 7" in result.output
    assert "trial 4 of 4, classes, seed 8, best score" in result.output

    written = grid.read_text(encoding="utf-8")
    assert written.startswith(text.rstrip("\n"))
    table = written[len(text.rstrip("\n")) :].strip()
    assert table in result.output
    assert f'[methods."{TOY}"]\n# tuned by 4 trials (' in table
    assert "tuning seeds 7, 8, sampler seed 0, score " in table
    values = tomllib.loads(written)["methods"][TOY]
    assert values["fixed"] is True  # from the pattern: the table stands by itself
    method = Preset.named(str(grid)).make_method(TOY)
    assert method == Toy(**values)
    Grid.read(grid)

    again = invoke(*common, "--trials", "1", "--write", grid, "--oracle")
    assert again.exit_code == 0, again.output
    rewritten = grid.read_text(encoding="utf-8")
    assert rewritten.count(TOY) == 1
    assert rewritten.count("tuned by") == 1
    assert "ORACLE: minus the average gap" in rewritten
    assert "ORACLE" in again.output
    assert Preset.named(str(grid)).make_method(TOY) == method  # the first trial is what the grid says


def test_a_new_file(grid: Path) -> None:
    fresh = grid.parent / "deep" / "fresh.toml"
    result = invoke(TOY, "--grid", grid, "--device", "cpu", "--trials", "1", "--write", fresh)
    assert result.exit_code == 0, result.output
    assert list(tomllib.loads(fresh.read_text(encoding="utf-8"))) == ["methods"]


def test_an_interruption_shows_the_best_so_far(
    grid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[float] = []
    unlearn = Toy.unlearn

    def interrupt(self: Toy, model: nn.Module, request: Request) -> nn.Module:
        calls.append(self.push)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return unlearn(self, model, request)

    monkeypatch.setattr(Toy, "unlearn", interrupt)
    fresh = tmp_path / "fresh.toml"
    result = invoke(
        TOY, "--grid", grid, "--device", "cpu", "--trials", "5", "--tuning-seeds", "7", "--write", fresh
    )
    assert result.exit_code == 130
    assert "interrupted after 2 of 5 trials: this is the best of them" in result.output
    assert "was not touched" in result.output
    assert f'[methods."{TOY}"]\n# tuned by 2 trials (' in result.output
    assert not fresh.exists()


def test_an_interruption_before_the_first_trial(grid: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> nn.Module:
        raise KeyboardInterrupt

    monkeypatch.setattr(Toy, "unlearn", interrupt)
    result = invoke(TOY, "--grid", grid, "--device", "cpu", "--tuning-seeds", "7")
    assert result.exit_code == 130
    assert "interrupted before a trial was finished; nothing was kept" in result.output


def test_a_grid_of_several_recipes(grid: Path) -> None:
    text = grid.read_text(encoding="utf-8") + "\n[[recipes]]\nepochs = 2\n[[recipes]]\nepochs = 3\n"
    grid.write_text(text, encoding="utf-8")
    result = invoke(TOY, "--grid", grid, "--device", "cpu")
    assert "one recipe is expected, but the grid has 2" in str(result.exception)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (("natmuu",), UnknownName, "did you mean 'natmu'"),
        (("none",), InvalidInput, "no searched settings"),
        (("natmu", "--tuning-seeds", "a"), InvalidInput, "separated by commas; got 'a'"),
        (("natmu", "--tuning-seeds", "0"), InvalidInput, "also a seed of the grid"),
        (("natmu", "--grid", "nowhere.toml"), InvalidInput, "neither packaged"),
    ],
)
def test_what_cannot_be_tuned(arguments: tuple[str, ...], kind: type[ExpungeError], message: str) -> None:
    result = invoke(*arguments, "--device", "cpu")
    assert isinstance(result.exception, kind)
    assert message in str(result.exception)


def test_only_the_table_changes() -> None:
    after = replace_table(GRID, "finetune", {"lr": 1e-05, "augment": False, "name": 'a"b'}, "tuned")
    head = GRID.index("[methods.finetune]")
    assert after[:head] == GRID[:head]
    assert after[head:] == '[methods.finetune]\n# tuned\nlr = 1e-05\naugment = false\nname = "a\\"b"\n'
    assert tomllib.loads(after)["methods"]["finetune"] == {"lr": 1e-05, "augment": False, "name": 'a"b'}


def test_comments_of_the_next_table_stay() -> None:
    text = "[methods.npo]\nlr = 1\n# old\n\n# about rem\n[methods.rem]\nlr = 2\n"
    assert replace_table(text, "npo", {"lr": 3}, "new") == (
        "[methods.npo]\n# new\nlr = 3\n# old\n\n# about rem\n[methods.rem]\nlr = 2\n"
    )


def test_a_later_pattern_does_not_win() -> None:
    text = '[methods.npo]\nlr = 1\n\n[methods."*"]\nlr = 2\n'
    after = replace_table(text, "npo", {"lr": 3}, "new")
    assert after.endswith('[methods."*"]\nlr = 2\n\n[methods.npo]\n# new\nlr = 3\n')
    assert after.count("npo") == 1


def test_an_array_over_lines_is_part_of_the_table() -> None:
    text = "[methods.npo]\nparts = [\n  [1, 2],\n  [3]\n]\nlr = 1\n\n[data]\nname = 'digits'\n"
    after = replace_table(text, "npo", {"lr": 3}, "")
    assert after == "[methods.npo]\nlr = 3\n\n[data]\nname = 'digits'\n"


def test_tables_that_other_tables_part_stay_where_they_are() -> None:
    text = "[methods.npo]\nlr = 1\n[data]\nx = 1\n[methods.rem]\nlr = 2  # why\n"
    assert replace_table(text, "npo", {"lr": 3}, "") == text.replace("lr = 1", "lr = 3")


@pytest.mark.parametrize("text", ["methods = { npo = { lr = 1 } }\n", "[methods]\nnpo.lr = 1\n"])
def test_settings_in_another_form_are_left_alone(text: str) -> None:
    with pytest.raises(InvalidInput, match="not a plain table"):
        replace_table(text, "npo", {"lr": 3}, "")


def test_a_file_that_is_not_toml() -> None:
    with pytest.raises(InvalidInput, match="not valid TOML"):
        replace_table("[methods", "npo", {}, "")


def test_a_value_without_a_form() -> None:
    with pytest.raises(InvalidInput, match="no form in TOML"):
        replace_table("", "npo", {"lr": object()}, "")
