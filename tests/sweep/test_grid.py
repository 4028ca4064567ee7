from __future__ import annotations

import dataclasses
import os
from functools import cache
from pathlib import Path

import pytest

import expunge.sweep.plan as planning
from expunge.cli.bench import GRIDS
from expunge.errors import InvalidInput
from expunge.sweep.grid import Grid
from expunge.sweep.plan import DataChoice
from expunge.sweep.preset import packaged_presets
from expunge.tasks.corruption import CorruptionTask
from expunge.tasks.forgetting import ForgetClasses, ForgetRandom
from expunge.training.numerics import Numerics
from expunge.training.recipe import Recipe

WHOLE = """
run = ["none", "natmu"]
seeds = [0, 2]
[data]
name = "digits"
n_unseen = 100
imbalance = 0.5
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
    assert grid.data == DataChoice("digits", n_unseen=100, imbalance=0.5)
    assert grid.tasks == (
        ForgetClasses(classes=(1, 3)),
        ForgetRandom(share=0.1),
        CorruptionTask(regularity=1.0, discovery=0.5, n_corrupted=50),
    )
    setup = grid.single()
    assert setup.recipe.epochs == 2
    assert [method.name for method in setup.methods] == ["none", "natmu"]
    assert setup.methods[1].settings()["delta"] == -0.1
    assert setup.methods[1].settings()["batch_size"] == 32
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
        "task 1: unknown task 'clases'; did you mean 'classes'?",
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


def test_a_list_stands_for_a_task_each() -> None:
    grid = Grid.parse(
        """
run = ["none"]
seeds = [0]
[data]
name = "digits"
[task]
n_corrupted = 7
[[tasks]]
kind = "corruption"
regularity = ["random", 1.0]
discovery = [0.1, 0.5]
swap_classes = [1, 2]
[[tasks]]
kind = "random"
share = [0.1, 0.2]
[[tasks]]
kind = "classes"
classes = [1, 2]
""",
        "here",
    )
    assert grid.tasks == (
        *(
            CorruptionTask(regularity=regularity, discovery=discovery, n_corrupted=7, swap_classes=(1, 2))
            for regularity in (0.0, 1.0)
            for discovery in (0.1, 0.5)
        ),
        ForgetRandom(share=0.1),
        ForgetRandom(share=0.2),
        ForgetClasses(classes=(1, 2)),
    )


RECIPES = """
run = ["finetune", "rem"]
seeds = [0]
[data]
name = "digits"
[[tasks]]
kind = "random"
[recipe]
batch_size = 64
model_settings = { width = 8 }
[methods."*"]
lr = 0.5
[methods."rem*"]
lr = 0.25
rounds = 3
[[recipes]]
epochs = 3
[[recipes]]
model = "mlp"
[recipes.methods."*"]
batch_size = 32
[recipes.methods.rem]
lr = 0.125
"""


def test_several_recipes_with_methods_of_their_own() -> None:
    first, second = Grid.parse(RECIPES, "here").setups
    assert first.recipe == Recipe(epochs=3, batch_size=64, model_settings={"width": 8})
    # another model does not take the settings of the first
    assert second.recipe == Recipe(model="mlp", batch_size=64)
    assert [method.settings()["lr"] for method in first.methods] == [0.5, 0.25]
    assert [method.settings()["lr"] for method in second.methods] == [0.5, 0.125]
    # a recipe's own pattern adds to the general ones, and undoes none that it does not name
    assert [method.settings()["batch_size"] for method in second.methods] == [32, 32]
    assert [setup.methods[1].settings()["rounds"] for setup in (first, second)] == [3, 3]
    with pytest.raises(InvalidInput, match=r"one recipe is expected, but the grid has 2 \(resnet9, mlp\)"):
        Grid.parse(RECIPES, "here").single()


def test_recipes_share_what_is_the_same(easy: DataChoice) -> None:
    text = RECIPES.replace('model = "mlp"', "epochs = 3").replace("digits", easy.name)
    plan = Grid.parse(text, "here").plan(Numerics(channels_last=False))
    assert len({cell.key for cell in plan.cells}) == len(plan.cells) == 4
    assert len(plan.trainings) == 1


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('kind = "random"', "share = 0.1", "task 1: a task takes a kind, one of corruption, classes"),
        ('kind = "random"', "kind = [1]", "got [1]"),
        (
            'kind = "random"',
            'kind = "random"\nshare = "a"',
            "task 1: 'random' cannot be made with {'share': 'a'}",
        ),
        ('kind = "random"', 'kind = "random"\nshare = []', "task 1: share is an empty list"),
        ('kind = "random"', 'kind = "subclass"\nfine = "x"', "fine takes a whole number, got 'x'"),
        ('kind = "random"', 'kind = "indices"\nindices = 3', "indices takes several values, such as [3]"),
        ('kind = "random"', 'kind = "indices"\nindices = [1.5]', "indices takes a whole number, got 1.5"),
        ('kind = "random"', 'kind = "classes"\nclasses = ["a"]', "classes takes a whole number, got 'a'"),
        ('kind = "random"', 'kind = "classes"\nclasses = [true]', "classes takes a whole number, got True"),
        ('name = "digits"', 'name = "digits"\nn_train = "all"', "[data]: data cannot be made with"),
        ('name = "digits"', "name = 3", "name takes text, got 3"),
        (
            'name = "digits"',
            'name = "digits"\nsize = 3',
            "[data]: data has no setting 'size' (settings: name,",
        ),
        ("epochs = 3", "epochs = 0", "recipe 1: epochs and batch size must be at least 1"),
        ("epochs = 3", "epoch = 3", "recipe 1: Recipe has no setting 'epoch'"),
        (
            "[recipes.methods.rem]",
            "[recipes.methods.rme]",
            "recipe 2: its settings: [methods.rme] matches no method",
        ),
        ("lr = 0.125", "rate = 1", "recipe 2, method rem: method 'rem' has no setting 'rate'"),
        ("[[recipes]]\nepochs", "[recipes]\nepochs", "is not valid TOML"),
        ("seeds = [0]", "seeds = [0.5]", "'seeds' must be a list of at least one of: whole numbers"),
    ],
)
def test_faults_say_where_and_what(old: str, new: str, message: str) -> None:
    assert old in RECIPES
    with pytest.raises(InvalidInput) as caught:
        Grid.parse(RECIPES.replace(old, new, 1), "here")
    assert message in str(caught.value)


def test_a_seed_that_no_record_can_hold_is_refused_before_anything_is_trained() -> None:
    grid = Grid.parse(RECIPES.replace("seeds = [0]", f"seeds = [{2**63}]"), "here")
    with pytest.raises(InvalidInput, match="whole number of 63 bits, got 9223372036854775808"):
        grid.plan(Numerics())


CELLS = {
    "digits": 351,
    "digits-all": 729,
    "digits-forgetting": 63,
    "digits-resnet9": 324,
    "cifar10-forgetting": 63,
    "cifar10-forgetting-plain": 36,
    "cifar10-small": 288,
    "paper": 2160,
    "imbalance-digits": 90,
    "no-harm-digits": 90,
    "relearn-ablation": 108,
    "relearn-ablation-cifar10-4k": 108,
    "relearn-cifar10-10k": 90,
    "relearn-cifar10-4k": 60,
    "relearn-digits": 500,
    "relearn-fashion-vit": 72,
    "rem-ablation": 72,
    "digits-recalibrated": 1440,
}
SETTINGS_ALONE = {"cifar10", "cifar10-10k"}


def test_every_packaged_file_is_known() -> None:
    assert set(packaged_presets()) == set(CELLS) | SETTINGS_ALONE
    assert set(GRIDS) == set(CELLS)


@pytest.mark.parametrize("name", CELLS)
def test_packaged_grids(name: str) -> None:
    grid = Grid.read(name)
    counts = [len(grid.tasks) * len(setup.methods) * len(grid.seeds) for setup in grid.setups]
    assert sum(counts) == CELLS[name]
    assert f"{CELLS[name]:,} cells" in packaged_presets()[name].replace("\n# ", " ")


read_once = cache(planning.load_data)
"""Most grids plan on the same photographs, which take seconds to read."""


@pytest.mark.parametrize("name", CELLS)
def test_packaged_grids_can_be_planned(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "load_data", read_once)
    grid = Grid.read(name)
    if grid.data.name != "digits":
        root = Path(os.environ.get("EXPUNGE_DATA", "no such folder"))
        folders = {"fashion_mnist": ("fashion_mnist",)}.get(
            grid.data.name, ("cifar10", "cifar-10-batches-py")
        )
        if not any((root / folder).is_dir() for folder in folders):
            pytest.skip(f"needs {grid.data.name} in the folder that EXPUNGE_DATA names")
    if name == "paper":  # with fewer images planned sooner, and enough to carry every task
        data = dataclasses.replace(grid.data, n_train=6000)
        grid = dataclasses.replace(grid, data=data, seeds=(0,))
    cells = {cell.key: cell for cell in grid.plan(Numerics()).cells}
    assert len(cells) == CELLS[name] / (3 if name == "paper" else 1)
    trainings = {cell.training.key for cell in cells.values()}
    assert len(trainings) == {
        "digits": 9,
        "digits-all": 18,
        "digits-resnet9": 9,
        "cifar10-small": 6,
        "paper": 18 / 3,
        "imbalance-digits": 9,
        "no-harm-digits": 9,
        "relearn-ablation": 6,
        "relearn-ablation-cifar10-4k": 6,
        "relearn-cifar10-10k": 9,
        "relearn-cifar10-4k": 6,
        "relearn-digits": 25,
        "relearn-fashion-vit": 9,
        "rem-ablation": 6,
        "digits-recalibrated": 15,
    }.get(name, 3)


@pytest.mark.parametrize("name", GRIDS)
def test_the_text_of_a_grid_reads_back_as_the_grid(name: str) -> None:
    grid = Grid.read(name)
    text = grid.text()
    assert Grid.parse(text, "its text") == dataclasses.replace(
        grid, data=dataclasses.replace(grid.data, root=None)
    )
    assert "settings =" not in text.partition("[")[0]  # it stands by itself
    assert Grid.parse(text, "its text").text() == text
