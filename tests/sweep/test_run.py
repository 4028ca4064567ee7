from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

import expunge
from expunge.errors import Diverged, StoreError
from expunge.methods.base import Method, Needs, Request
from expunge.methods.finetune import FineTune
from expunge.methods.mnemonic_code import MnemonicCode
from expunge.methods.no_unlearning import NoUnlearning
from expunge.methods.npo import NPO
from expunge.methods.retrain_corrected import RetrainCorrected
from expunge.store.record import METRICS, Record
from expunge.store.weights import WeightStore
from expunge.sweep.plan import CODES, DIFFICULTY, Cell, DataChoice, build_problem, make_plan
from expunge.sweep.run import failed_record, load_trained, run_cell, run_training
from expunge.tasks.corruption import CorruptionTask
from expunge.tasks.forgetting import ForgetClasses, ForgetHardest
from expunge.training.numerics import Numerics
from expunge.training.recipe import Optimiser, Recipe

RECIPE = Recipe(epochs=4, batch_size=16, augment=False, model_settings={"width": 8})
POISON = CorruptionTask(regularity=1.0, n_corrupted=10, patch=2, discovery=0.4)


@dataclass(frozen=True, kw_only=True)
class Broken(Method):
    name = "broken"
    needs = Needs.NOTHING

    def unlearn(self, model: nn.Module, request: Request) -> nn.Module:
        raise KeyError("a part that is not there")


@dataclass(frozen=True, kw_only=True)
class Nosy(Method):
    name = "nosy"
    needs = Needs.FORGET

    def unlearn(self, model: nn.Module, request: Request) -> nn.Module:
        request.truth  # noqa: B018
        return model


@dataclass(frozen=True, kw_only=True)
class Watchful(Method):
    """Logs what it was given."""

    name = "watchful"
    needs = Needs.FORGET | Needs.RETAIN

    def unlearn(self, model: nn.Module, request: Request) -> nn.Module:
        request.meter.write(forget=len(request.forget), retain=len(request.retain), seed=request.seed)
        return model


def cell_of(
    data: DataChoice, method: Method, task: CorruptionTask = POISON, recipe: Recipe = RECIPE, seed: int = 0
) -> Cell:
    return make_plan(data, [task], recipe, [method], [seed], Numerics(channels_last=False)).cells[0]


@pytest.fixture(scope="module")
def folder(easy: DataChoice, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights folder with the original model of POISON, seed 0."""
    made = tmp_path_factory.mktemp("weights")
    run_training(cell_of(easy, NoUnlearning()).training, made)
    return made


def test_a_done_record_is_complete(easy: DataChoice, folder: Path) -> None:
    cell = cell_of(easy, FineTune(epochs=1, batch_size=16, augment=False))
    record = run_cell(cell, folder)
    assert record.status == "done"
    assert record.error == ""
    for name in METRICS:
        assert math.isfinite(getattr(record, name)), name
    assert record.utility is not None
    assert record.healed is not None
    assert record.healed_known is not None
    assert record.healed_unknown is not None
    assert record.uxh == pytest.approx(record.utility * record.healed)
    known, unknown = 4, 6
    assert record.healed == pytest.approx(
        (known * record.healed_known + unknown * record.healed_unknown) / 10
    )
    assert len(record.per_class) == 4
    assert record.utility == pytest.approx(sum(part for part in record.per_class if part is not None) / 4)
    assert record.seconds is not None
    assert record.seconds > 0
    assert record.sample_gradients == 96 - 4
    model = RECIPE.build((1, 8, 8), 4, torch.Generator())
    size = sum(parameter.numel() for parameter in model.parameters())
    assert record.parameters_before == record.parameters_during == record.parameters_after == size
    if Path("/proc/self/clear_refs").exists():
        assert record.peak_memory is not None
        assert record.peak_memory >= 0
    assert record.settings == {
        name: value for name, value in dataclasses.asdict(cell.method).items() if name != "recalibrate"
    }
    assert record.recipe == dataclasses.asdict(RECIPE)
    assert (record.method, record.oracle, record.model) == ("finetune", False, "resnet9")
    assert (record.data, record.regularity, record.discovery, record.n_corrupted) == (easy.name, 1.0, 0.4, 10)
    assert (record.key, record.task_key, record.model_key) == (cell.key, cell.task_key, cell.training.key)
    assert record.weights_key == ""
    assert not WeightStore(folder).has(cell.key)
    assert record.provenance["expunge"] == expunge.__version__
    assert record.provenance["torch"] == torch.__version__
    assert record.provenance["device"] == "cpu"
    assert record.provenance["dtype"] == "float32"
    assert record.provenance["created"].endswith("+00:00")


def test_the_seed_reaches_everything(easy: DataChoice, tmp_path: Path) -> None:
    cell = cell_of(easy, Watchful(), seed=3)
    run_training(cell.training, tmp_path)
    record = run_cell(cell, tmp_path)
    assert (record.seed, record.data_seed, record.training_seed, record.unlearning_seed) == (3, 3, 3, 3)
    assert [{**row, "seconds": 0} for row in record.log] == [
        {"seconds": 0, "forget": 4.0, "retain": 92.0, "seed": 3.0}
    ]


def test_the_same_cell_gives_the_same_numbers(easy: DataChoice, folder: Path) -> None:
    cell = cell_of(easy, NPO(lr=0.01, passes=2, augment=False))
    first, second = run_cell(cell, folder), run_cell(cell, folder)
    for name in (*METRICS, "per_class", "sample_gradients", "settings"):
        assert getattr(first, name) == getattr(second, name)


def test_a_smaller_data_set_is_named_as_such(easy: DataChoice) -> None:
    cell = cell_of(dataclasses.replace(easy, n_train=48), NoUnlearning())
    assert failed_record(cell, "why").data == f"{easy.name}[48]"


def test_no_unlearning_measures_the_first_model(easy: DataChoice, folder: Path) -> None:
    cell = cell_of(easy, NoUnlearning())
    record = run_cell(cell, folder)
    stored = WeightStore(folder).metadata(cell.training.key)
    assert record.corruption_learned == float(stored["corruption_learned"])
    assert record.corruption_learned == run_training(cell.training, folder)
    assert record.sample_gradients == 0


def test_an_oracle_is_labelled(easy: DataChoice, folder: Path) -> None:
    record = run_cell(cell_of(easy, RetrainCorrected()), folder)
    assert record.status == "done"
    assert record.oracle is True
    assert record.sample_gradients == 4 * 96


def test_a_training_is_stored_once(easy: DataChoice, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = cell_of(easy, NoUnlearning()).training

    def train(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(Recipe, "train", train)
    assert 0 <= run_training(training, folder) <= 1
    with pytest.raises(AssertionError, match="trained again"):
        run_training(dataclasses.replace(training, key="0" * 32), folder)
    loaded, codes = load_trained(training, folder)
    assert codes is None
    stored = WeightStore(folder).load(training.key)
    difficulty = stored.pop(DIFFICULTY)
    assert difficulty.shape == (96,)
    assert bool((difficulty > 0).all())
    assert {name: tensor.tolist() for name, tensor in loaded.state_dict().items()} == {
        name: tensor.tolist() for name, tensor in stored.items()
    }


def test_the_draws_are_stored_under_the_task_key(easy: DataChoice, folder: Path) -> None:
    cell = cell_of(easy, NoUnlearning())
    run_cell(cell, folder)
    tensors = WeightStore(folder).load(cell.task_key)
    assert set(tensors) == {"labels", "true_labels", "corrupted", "known", "stamped"}
    labels, true = tensors["labels"], tensors["true_labels"]
    assert (labels != true).nonzero().flatten().tolist() == tensors["corrupted"].tolist()
    assert len(tensors["corrupted"]) == 10
    assert len(tensors["known"]) == 4
    assert set(tensors["known"].tolist()) < set(tensors["corrupted"].tolist())
    assert tensors["stamped"].nonzero().flatten().tolist() == tensors["corrupted"].tolist()
    assert torch.equal(true, easy.load("cpu").train_labels)
    assert torch.equal(labels, build_problem(cell.training, cell.task, folder).split.train.labels)
    assert repr(cell.task) == WeightStore(folder).metadata(cell.task_key)["task"]


def test_unlearned_weights_are_kept_on_request(easy: DataChoice, folder: Path) -> None:
    cell = cell_of(easy, FineTune(epochs=2, batch_size=16, augment=False))
    record = run_cell(cell, folder, keep_weights=True)
    assert record.weights_key == cell.key
    kept, first = WeightStore(folder).load(cell.key), WeightStore(folder).load(cell.training.key)
    assert kept.keys() == first.keys() - {DIFFICULTY}
    assert any(not torch.equal(kept[name], first[name]) for name in kept)


def test_codes_are_stored_with_the_first_model_and_reach_the_method(easy: DataChoice, tmp_path: Path) -> None:
    plan = make_plan(
        easy, [ForgetClasses(classes=(1,))], RECIPE, [NoUnlearning(), MnemonicCode()], [0],
        Numerics(channels_last=False),
    )  # fmt: skip
    plain, prepared = (cell.training for cell in plan.cells)
    assert plain.key != prepared.key
    assert prepared.recipe.codes is not None
    run_training(prepared, tmp_path)
    stored = WeightStore(tmp_path).load(prepared.key)
    assert torch.equal(stored[CODES], prepared.recipe.codes.draw(0, 4, (1, 8, 8)))
    record = run_cell(plan.cells[1], tmp_path)
    assert (record.status, record.error) == ("done", "")
    assert (record.task, record.regularity) == ("classes", None)
    assert record.sample_gradients == 4


def test_the_hardest_are_those_of_the_first_model(easy: DataChoice, tmp_path: Path) -> None:
    numerics = Numerics(channels_last=False)
    cell = make_plan(easy, [ForgetHardest(share=0.1)], RECIPE, [NoUnlearning()], [0], numerics).cells[0]
    run_training(cell.training, tmp_path)
    difficulty = WeightStore(tmp_path).load(cell.training.key)[DIFFICULTY]
    problem = build_problem(cell.training, cell.task, tmp_path)
    assert set(problem.split.forget_positions.tolist()) == set(difficulty.topk(9).indices.tolist())


def failure(data: DataChoice, method: Method, folder: Path) -> Record:
    cell = cell_of(data, method)
    record = run_cell(cell, folder)
    assert record.status == "failed"
    assert record.key == cell.key
    assert record.utility is None
    assert record.seconds is None
    return record


def test_a_diverging_method_says_what_to_do(easy: DataChoice, folder: Path) -> None:
    record = failure(easy, FineTune(lr=1e6, epochs=3, batch_size=16, augment=False), folder)
    assert record.error.startswith("Diverged: ")
    assert "learning rate" in record.error
    assert "lower" in record.error
    assert "\n" not in record.error


def test_a_method_that_raises_anything(easy: DataChoice, folder: Path) -> None:
    record = failure(easy, Broken(), folder)
    assert record.error.strip().splitlines()[-1] == "KeyError: 'a part that is not there'"
    assert "in unlearn" in record.error


def test_a_method_that_reads_more_than_it_declares(easy: DataChoice, folder: Path) -> None:
    error = failure(easy, Nosy(), folder).error
    assert error == (
        "UndeclaredNeed: method 'nosy' reads 'truth' but declares only 'forget'; add it to `needs`"
    )


def test_without_the_first_model(easy: DataChoice, tmp_path: Path) -> None:
    assert failure(easy, NoUnlearning(), tmp_path).error.startswith("StoreError: there are no weights")


def test_a_truncated_first_model(easy: DataChoice, folder: Path, tmp_path: Path) -> None:
    cell = cell_of(easy, NoUnlearning())
    whole = WeightStore(folder).path(cell.training.key).read_bytes()
    WeightStore(tmp_path).path(cell.training.key).write_bytes(whole[: len(whole) // 2])
    assert "delete that file" in failure(easy, NoUnlearning(), tmp_path).error
    with pytest.raises(StoreError, match="delete that file so that it is made again"):
        run_training(cell.training, tmp_path)


def test_a_diverging_training_stores_nothing(easy: DataChoice, tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, optimiser=Optimiser(lr=1e12))
    with pytest.raises(Diverged, match="lower the learning rate"):
        run_training(cell_of(easy, NoUnlearning(), recipe=recipe).training, tmp_path)
    assert list(tmp_path.iterdir()) == []
