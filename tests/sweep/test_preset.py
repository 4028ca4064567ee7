from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from expunge.errors import InvalidInput, UnknownName
from expunge.methods.base import Method, Needs, Request
from expunge.methods.finetune import FineTune
from expunge.methods.rem import REM
from expunge.registry import METHODS
from expunge.sweep.preset import Preset
from expunge.tasks.corruption import CorruptionTask
from expunge.training.preparations import ExampleTied, MnemonicCodes
from expunge.training.recipe import Optimiser, Recipe


def parse(text: str) -> Preset:
    return Preset.parse(text, "mine.toml")


def settings(preset: Preset, name: str, **overrides: Any) -> dict[str, Any]:
    return preset.make_method(name, overrides).settings()


@dataclass(frozen=True, kw_only=True)
class Demanding(Method):
    name = "demanding"
    needs = Needs.NOTHING

    strength: float

    def unlearn(self, model: nn.Module, request: Request) -> nn.Module:
        return model


def packaged(data: str) -> dict[str, Any]:
    text = resources.files("expunge.grids").joinpath(f"{data}.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


@pytest.mark.parametrize("data", ["digits", "cifar10"])
def test_packaged_task_and_recipe(data: str) -> None:
    preset, content = Preset.of(data), packaged(data)
    task = preset.make_task(regularity="poison", discovery=0.5)
    assert task == CorruptionTask(regularity=1.0, discovery=0.5, **content["task"])
    recipe = dict(content.get("recipe", {}))
    optimiser = Optimiser(**recipe.pop("optimiser", {}))
    assert preset.make_recipe() == Recipe(optimiser=optimiser, **recipe)


def test_the_batch_size_of_digits_reaches_every_method_that_has_one() -> None:
    methods = packaged("digits")["methods"]
    for name in METHODS.names():
        method = Preset.of("digits").make_method(name)
        if "batch_size" in method.settings():
            usual = None if type(method)().settings()["batch_size"] is None else methods["*"]["batch_size"]
            assert method.settings()["batch_size"] == methods.get(name, {}).get("batch_size", usual)
        assert method.settings().get("augment", False) in (False, None)
        assert Preset.of("cifar10").make_method(name) == METHODS.get(name)()


def test_packaged_deviations_reach_the_methods_they_name() -> None:
    preset, sections = Preset.of("digits"), packaged("digits")["methods"]
    for name in ("rem", "rem_ideal"):
        assert sections["rem*"].items() <= settings(preset, name).items()
    without = settings(preset, "rem_without_redirection")
    assert without["spare"] == REM().spare != sections["rem*"]["spare"]
    assert {
        key: value for key, value in sections["rem*"].items() if key != "spare"
    }.items() <= without.items()
    named = [name for name in sections if "*" not in name]
    assert named
    for name in named:
        assert sections[name].items() <= settings(preset, name).items()


@pytest.mark.parametrize("data", ["", "../grids/digits", "my/folder/own.npz"])
def test_no_preset_means_the_defaults(data: str) -> None:
    assert Preset.of(data) == Preset()
    assert Preset.of(data).make_recipe() == Recipe()
    assert Preset.of(data).make_task() == CorruptionTask()


def test_a_wildcard_leaves_out_what_a_method_lacks() -> None:
    preset = parse('[methods."*"]\nrounds = 3\nbatch_size = 16')
    assert settings(preset, "rem")["rounds"] == 3
    assert settings(preset, "finetune")["batch_size"] == 16
    assert settings(preset, "none") == {}


def test_what_a_method_finds_itself_is_set_by_its_name_and_not_for_all() -> None:
    text = """
        [methods."*"]
        lr = 0.5
        momentum = 0.5
        [methods."rel*"]
        batch_size = 7
        [methods.relearn]
        augment = false
    """
    found = settings(parse(text), "relearn")
    assert (found["lr"], found["momentum"], found["batch_size"], found["augment"]) == (None, 0.5, 7, False)
    assert settings(parse(text), "npo")["lr"] == 0.5


def test_an_exact_name_with_a_foreign_setting_is_an_error() -> None:
    with pytest.raises(
        UnknownName, match=r"method 'finetune' has no setting 'rounds' \(settings: .*lr, batch"
    ):
        parse("[methods.finetune]\nrounds = 3").make_method("finetune")


def test_later_patterns_win() -> None:
    general, exact = '[methods."rem*"]\nlr = 0.5\n', "[methods.rem]\nlr = 0.25\n"
    assert settings(parse(general + exact), "rem")["lr"] == 0.25
    assert settings(parse(exact + general), "rem")["lr"] == 0.5
    assert settings(parse(general + exact), "rem_ideal")["lr"] == 0.5
    assert settings(parse(general + exact), "npo")["lr"] == FineTune.lr


def test_overrides_win() -> None:
    preset = parse("[task]\nn_corrupted = 7\npatch = 2\n[methods.rem]\nlr = 0.25\nrounds = 4")
    assert preset.make_task(n_corrupted=8) == CorruptionTask(n_corrupted=8, patch=2)
    assert preset.make_method("rem", {"lr": 0.125}) == REM(lr=0.125, rounds=4)


def test_another_model_drops_the_model_settings() -> None:
    preset = parse("[recipe]\nepochs = 2\nmodel_settings = { width = 8 }")
    assert preset.make_recipe("vit") == Recipe(model="vit", epochs=2)
    # the same model, whether it is the preset's or the default, keeps them
    assert (
        preset.make_recipe("resnet9") == preset.make_recipe() == Recipe(epochs=2, model_settings={"width": 8})
    )
    named = parse('[recipe]\nmodel = "vit"\nmodel_settings = { depth = 2 }')
    assert named.make_recipe().model_settings == {"depth": 2}
    assert named.make_recipe("resnet9") == Recipe(model="resnet9")


def test_optimiser_is_a_table() -> None:
    preset = parse("[recipe]\noptimiser = { name = 'adam', lr = 0.5 }")
    assert preset.make_recipe().optimiser == Optimiser(name="adam", lr=0.5)
    with pytest.raises(InvalidInput, match=r"recipe.optimiser takes a table such as .* got 'adam'"):
        parse("[recipe]\noptimiser = 'adam'").make_recipe()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[recipes]\nepochs = 3", r"mine.toml: unknown section \[recipes\] \(known: task, recipe, methods\)"),
        ("[[recipe]]\nepochs = 3", r"mine.toml: settings belong in a table \[recipe\], got"),
        ("[recipe\nepochs = 3", r"mine.toml is not valid TOML: .*line 1"),
        ("task = 3", r"mine.toml: settings belong in a table \[task\], got 3"),
        ("[methods]\nlr = 0.1", r"mine.toml: settings belong in a table \[methods.NAME\], got 0.1"),
        ("methods = [1]", r"mine.toml: settings belong in a table \[methods.NAME\], got \[1\]"),
        (
            "[methods.nattmu]\nlr = 1",
            r"mine.toml: \[methods.nattmu\] matches no method; did you mean 'natmu'\? \(known: none",
        ),
        ('[methods."remm*"]\nlr = 1', r"mine.toml: \[methods.remm\*\] matches no method"),
        ('settings = "digit"', "settings = 'digit' names no packaged file"),
        ("settings = 3", "settings = 3 names no packaged file"),
        ("[settings]\nname = 'digits'", r"settings = \{'name': 'digits'\} names no packaged file"),
    ],
)
def test_unreadable_presets(text: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        parse(text)


def test_settings_on_top_of_a_packaged_file() -> None:
    base = Preset.of("digits")
    own = parse(
        """
        settings = "digits"
        [task]
        n_corrupted = 7
        [methods.npo]
        lr = 0.5
        [methods.scrub]
        lr = 0.25
        """
    )
    assert own.task == {**base.task, "n_corrupted": 7}
    assert own.recipe == base.recipe
    assert settings(own, "npo") == {**settings(base, "npo"), "lr": 0.5}
    assert settings(own, "scrub")["batch_size"] == settings(base, "scrub")["batch_size"] == 128
    assert settings(own, "rem") == settings(base, "rem")


def test_another_model_on_top_drops_the_model_settings() -> None:
    base = Preset(recipe={"model": "resnet9", "epochs": 3, "model_settings": {"width": 8}})
    other = base.with_deviations(Preset(recipe={"model": "mlp"}))
    assert other.recipe == {"model": "mlp", "epochs": 3, "model_settings": {}}
    assert base.with_deviations(Preset(recipe={"epochs": 4})).recipe["model_settings"] == {"width": 8}


def test_a_grid_is_read_as_a_preset() -> None:
    parts = "unlearning_seeds = [1, 2]\nmetrics = ['tow']\nrun = ['none']\nseeds = [0]\n"
    assert parse(parts + "[task]\npatch = 2") == Preset(task={"patch": 2})


def test_unknown_settings_list_the_known_ones() -> None:
    with pytest.raises(
        UnknownName,
        match=r"Recipe has no setting 'epoch'; did you mean 'epochs'\? \(settings: model, .*epochs, ",
    ):
        parse("[recipe]\nepoch = 3").make_recipe()
    with pytest.raises(
        UnknownName, match=r"CorruptionTask has no setting 'n_corrupt'; did you mean 'n_corrupted'\?"
    ):
        parse("[task]\nn_corrupt = 3").make_task()
    with pytest.raises(UnknownName, match=r"CorruptionTask has no setting 'rate'"):
        Preset().make_task(rate=0.5)
    with pytest.raises(UnknownName, match=r"Optimiser has no setting 'rate'.* \(settings: name, lr"):
        parse("[recipe]\noptimiser = { rate = 0.1 }").make_recipe()
    with pytest.raises(UnknownName, match=r"method 'npo' has no setting 'rounds' .*passes"):
        Preset().make_method("npo", {"rounds": 1})
    with pytest.raises(UnknownName, match=r"unknown method 'rme'; did you mean 'rem'\?"):
        Preset().make_method("rme")


def test_settings_of_ones_own_methods_are_not_looked_up() -> None:
    assert settings(parse(f'[methods."{__name__}:*"]\nstrength = 3'), f"{__name__}:Demanding") == {
        "strength": 3
    }


def test_preparations_are_tables() -> None:
    preset = parse("[recipe]\ncodes = { share = 0.2 }")
    assert preset.make_recipe().codes == MnemonicCodes(share=0.2)
    tied = parse("[recipe]\nexample_tied = { share = 0.3 }").make_recipe().example_tied
    assert tied == ExampleTied(share=0.3)
    with pytest.raises(InvalidInput, match=r"recipe.codes takes a table such as \{ share = 0.1 \}, got True"):
        parse("[recipe]\ncodes = true").make_recipe()
    with pytest.raises(InvalidInput, match=r"recipe.model_settings takes a table such as .* got 3"):
        parse("[recipe]\nmodel_settings = 3").make_recipe()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: parse("[recipe]\nepochs = 2.5").make_recipe(), "epochs takes a whole number, got 2.5"),
        (lambda: parse("[recipe]\nepochs = true").make_recipe(), "epochs takes a whole number, got True"),
        (lambda: parse("[recipe]\nmodel = 3").make_recipe(), "model takes text, got 3"),
        (lambda: Preset().make_task(n_corrupted=1.5), "n_corrupted takes a whole number, got 1.5"),
        (lambda: Preset().make_task(discovery="half"), "discovery takes a number, got 'half'"),
        (lambda: Preset().make_task(regularity=[0.5]), "CorruptionTask cannot be made with .*wrong type"),
        (lambda: Preset().make_method("rem", {"rounds": 1.5}), "rounds takes a whole number, got 1.5"),
        (lambda: Preset().make_method("potion", {"tries": "x"}), "tries takes a whole number, got 'x'"),
    ],
)
def test_values_that_a_constructor_would_take_unseen(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        make()


def test_none_is_a_value_where_it_is_declared() -> None:
    assert settings(Preset(), "potion", tries=None)["tries"] is None


def test_values_of_the_wrong_type() -> None:
    with pytest.raises(InvalidInput, match=r"Recipe cannot be made with \{'epochs': 'ten'\}: .*wrong type"):
        parse("[recipe]\nepochs = 'ten'").make_recipe()
    with pytest.raises(
        InvalidInput, match=r"method 'finetune' cannot be made with \{'lr': 'fast'\}: .*wrong type"
    ):
        Preset().make_method("finetune", {"lr": "fast"})
    # text would count as true
    with pytest.raises(InvalidInput, match=r"method 'finetune': augment must be true or false, got 'False'"):
        Preset().make_method("finetune", {"augment": "False"})
    with pytest.raises(InvalidInput, match=r"Recipe: augment must be true or false, got 0"):
        parse("[recipe]\naugment = 0").make_recipe()


def test_a_path_that_leads_to_no_method() -> None:
    with pytest.raises(InvalidInput, match=r"not a subclass of expunge.methods.base.Method"):
        Preset().make_method("expunge.fingerprint:fingerprint")
    demanding = f"{__name__}:Demanding"
    assert settings(Preset(), demanding, strength=2.0) == {"strength": 2.0}
    with pytest.raises(InvalidInput, match=r"method 'demanding' cannot be made with \{\}: .*'strength'"):
        Preset().make_method(demanding)


def test_named_presets(tmp_path: Path) -> None:
    assert Preset.named("digits") == Preset.of("digits")
    path = tmp_path / "mine.toml"
    path.write_text("[recipe]\nepochs = 3", encoding="utf-8")
    assert Preset.named(str(path)) == Preset(recipe={"epochs": 3})
    path.write_text("[recipe]\nepochs = 3\n[[recipes]]\nmodel = 'vit'", encoding="utf-8")
    assert Preset.named(str(path)) == Preset(recipe={"epochs": 3})
    with pytest.raises(InvalidInput, match=r"preset 'digit' is neither packaged \(.*digits.*\) nor a file"):
        Preset.named("digit")
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidInput, match=r"mine.toml' is neither packaged .* can't decode"):
        Preset.named(str(path))
