"""Records as runs of a tracker, read back from what the tracker itself has stored."""

from __future__ import annotations

import importlib
import importlib.util
import os
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, ClassVar

import pytest

from expunge.errors import InvalidInput, UnknownName
from expunge.methods.finetune import FineTune
from expunge.methods.no_unlearning import NoUnlearning
from expunge.methods.npo import NPO
from expunge.store.record import Record
from expunge.store.store import Store
from expunge.sweep.execute import execute
from expunge.sweep.plan import DataChoice, Plan, make_plan
from expunge.sweep.trackers import (
    TRACKERS,
    Trackers,
    find_tracker,
    open_tracker,
    parameters,
    results,
    run_name,
)
from expunge.tasks.corruption import CorruptionTask
from expunge.training.numerics import Numerics
from expunge.training.recipe import Recipe

KEY = "0123456789abcdef" * 2
CURVE = [{"seconds": 0.5, "loss": 2.0}, {"seconds": 1.0, "loss": 0.25, "score": -1.5}]
DONE = Record(
    key=KEY, status="done", data="digits", regularity=1.0, discovery=0.1, n_corrupted=40, model="resnet9",
    method="rem", settings={"lr": 0.5, "layers": ["a", "b"], "none": None}, recipe={"optimiser": {"lr": 0.1}},
    seed=3, task_key="t" * 32, model_key="m" * 32, healed=0.5, utility=0.75, uxh=0.375, asr=0.0,
    metrics={"forget_accuracy": 0.125, "undefined": None}, seconds=2.5, sample_gradients=1000,
    peak_memory=4096, log=CURVE, provenance={"torch": "2"},
)  # fmt: skip
FAILED = Record(
    key="f" * 32, status="failed", error="Traceback:\n  here\nDiverged: the loss is nan", data="digits",
    task="classes", model="resnet9", method="npo", seed=0,
)  # fmt: skip
RESULTS = {
    "healed": 0.5, "utility": 0.75, "uxh": 0.375, "asr": 0.0, "forget_accuracy": 0.125,
    "seconds": 2.5, "sample_gradients": 1000, "peak_memory": 4096,
}  # fmt: skip


def needs(module: str) -> pytest.MarkDecorator:
    missing = importlib.util.find_spec(module) is None
    return pytest.mark.skipif(missing, reason=f"{module} is not installed: pip install 'expunge[trackers]'")


@pytest.fixture(autouse=True)
def no_server_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "WANDB_API_KEY", "WANDB_PROJECT", "WANDB_BASE_URL", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """What asked the proxy to be let out."""
    asked: list[bytes] = []
    server = socket.create_server(("127.0.0.1", 0))

    def listen() -> None:
        while True:
            try:
                caller, _ = server.accept()
            except OSError:
                return
            with caller:
                asked.append(caller.recv(200))

    threading.Thread(target=listen, daemon=True).start()
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{server.getsockname()[1]}")
    yield asked
    server.close()


class Listing:
    """Keeps what it gets; fails from the record named in its target on."""

    made: ClassVar[list[Listing]] = []

    def __init__(self, target: str | None, folder: Path) -> None:
        self.place, self.target, self.records = f"list {target}", target, list[Record]()
        self.made.append(self)

    def log(self, record: Record) -> None:
        if record.method == self.target:
            raise ConnectionError("the server is gone\nand more")
        self.records.append(record)


class Broken:
    def __init__(self, target: str | None, folder: Path) -> None:
        if target:
            raise OSError(target)


LISTING = f"{__name__}:Listing"


@pytest.fixture(autouse=True)
def none_made() -> None:
    Listing.made.clear()


def test_what_a_run_holds() -> None:
    assert run_name(DONE) == "rem, poison, 10% known, seed 3, 01234567"
    assert run_name(FAILED) == "npo, classes, seed 0, ffffffff"
    found = parameters(DONE)
    assert found["settings"] == DONE.settings
    assert (found["key"], found["recipe"], found["seed"]) == (KEY, {"optimiser": {"lr": 0.1}}, 3)
    assert (found["status"], found["oracle"], found["data_seed"]) == ("done", False, 0)
    assert not {"error", "weights_key", "healed", "log", "seconds", "task_settings"} & set(found)
    assert results(DONE) == RESULTS
    assert parameters(FAILED)["error"] == "Diverged: the loss is nan"
    assert results(FAILED) == {"failed": 1.0}


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("tensorbord", UnknownName, "unknown tracker 'tensorbord'; did you mean 'tensorboard'"),
        ("mlflow:", InvalidInput, "tracker 'mlflow:' has an empty target; leave out the last colon"),
        (f"{LISTING}:", InvalidInput, "has an empty target"),
        ("nowhere:Tracker", InvalidInput, "tracker path 'nowhere:Tracker' cannot be loaded: No module"),
    ],
)
def test_bad_choices(text: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        find_tracker(text)


def test_a_tracker_of_ones_own(tmp_path: Path) -> None:
    texts = [LISTING, f"{LISTING}:http://host:80", LISTING]
    assert not Listing.made
    trackers = Trackers(texts, tmp_path, pytest.fail)
    trackers.log(DONE)
    assert [made.target for made in Listing.made] == [None, "http://host:80"]
    assert trackers.logged == {"list None": 1, "list http://host:80": 1}
    assert Listing.made[1].records == [DONE]


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"cannot be opened \(OSError: no host\); see that its server"):
        open_tracker(f"{__name__}:Broken:no host", tmp_path)
    with pytest.raises(InvalidInput, match=r"made a Broken; an object with log\(record\) and a string place"):
        open_tracker(f"{__name__}:Broken", tmp_path)


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("tensorboard", "tensorboard"),
        ("tensorboard", "lightning_fabric.loggers"),
        ("mlflow", "mlflow.tracking"),
        ("mlflow", "pytorch_lightning.loggers"),
        ("wandb", "wandb"),
    ],
)
def test_a_missing_package_is_named(
    name: str, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = module.partition(".")[0]
    if package != name:
        pytest.importorskip(name, exc_type=ImportError)
    monkeypatch.setitem(sys.modules, module, None)
    expected = rf"--log {name} needs {package}, which cannot .*; run: pip install 'expunge\[{name}\]'"
    with pytest.raises(InvalidInput, match=expected):
        open_tracker(name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_long_error_is_cut(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"\(OSError: (word )+\.\.\.\); see") as caught:
        open_tracker(f"{__name__}:Broken:{'word ' * 100}", tmp_path)
    assert str(caught.value).count("word") < 100 + 200 / 5


def test_every_name_is_a_tracker() -> None:
    for name in TRACKERS.names():
        assert callable(TRACKERS.get(name).log)


class Inline:
    """An engine that carries out each job at once; starting a worker process takes seconds."""

    slots = 1

    def submit(self, task: Callable[..., Any], /, *args: Any) -> Future[Any]:
        future = Future[Any]()
        future.set_result(task(*args))
        return future

    def close(self) -> None:
        pass


class TestInASweep:
    def plan(self, easy: DataChoice) -> Plan:
        recipe = Recipe(epochs=1, batch_size=16, augment=False, model_settings={"width": 8})
        task = CorruptionTask(regularity=0.0, n_corrupted=10, patch=2, discovery=0.5)
        methods = [NoUnlearning(), FineTune(lr=1e6, epochs=3, batch_size=16, augment=False), NPO(passes=2)]
        return make_plan(easy, [task], recipe, methods, [0], Numerics(channels_last=False))

    def test_each_new_record_once_after_the_store_has_it(self, easy: DataChoice, tmp_path: Path) -> None:
        plan = self.plan(easy)
        seen: list[Record] = []
        with Store(tmp_path) as store:

            def see(record: Record) -> None:
                assert store.database.get(record.key) == record
                seen.append(record)

            execute(plan, store, engine=Inline(), limit=1, recorded=see)
            assert len(seen) == 1
            execute(plan, store, engine=Inline(), recorded=see)
            assert len(seen) == len({record.key for record in seen}) == 3
            assert sorted(record.status for record in seen) == ["done", "done", "failed"]
            execute(plan, store, engine=Inline(), recorded=see)
            assert len(seen) == 3
            execute(plan, store, engine=Inline(), retry_failed=True, recorded=see)
            assert [record.method for record in seen[3:]] == ["finetune"]

    def test_a_lost_server_costs_no_record(self, easy: DataChoice, tmp_path: Path) -> None:
        said: list[str] = []
        trackers = Trackers([f"{LISTING}:none", LISTING], tmp_path, said.append)
        with Store(tmp_path) as store:
            execute(self.plan(easy), store, engine=Inline(), recorded=trackers.log)
            assert len(store.database.records()) == 3
        assert len(said) == 1
        assert "none' failed (ConnectionError: the server is gone); it gets no more runs of this" in said[0]
        assert len(Listing.made[1].records) == 3
        assert trackers.logged["list None"] == 3


@needs("lightning_fabric")
@needs("tensorboard")
class TestTensorBoard:
    def read(self, folder: Path) -> Any:
        accumulator = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
        return accumulator.EventAccumulator(str(folder)).Reload()

    def hparams(self, events: Any) -> dict[str, Any]:
        metadata = importlib.import_module("tensorboard.plugins.hparams.metadata")
        content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
        made = metadata.parse_session_start_info_plugin_data(content).hparams
        return {name: getattr(value, value.WhichOneof("kind")) for name, value in made.items()}

    def test_done_and_failed(self, tmp_path: Path) -> None:
        tracker = open_tracker("tensorboard", tmp_path)
        tracker.log(DONE)
        tracker.log(FAILED)
        assert tracker.place == str(tmp_path / "tensorboard")
        done, failed = sorted((tmp_path / "tensorboard").iterdir(), reverse=True)
        assert (done.name, failed.name) == (
            "rem-poison-10-known-seed-3-01234567",
            "npo-classes-seed-0-ffffffff",
        )
        events = self.read(done)
        scalars = {name: events.Scalars(name) for name in events.Tags()["scalars"]}
        assert {name: found[0].value for name, found in scalars.items() if name in RESULTS} == RESULTS
        assert [(e.step, e.value) for e in scalars["curve/loss"]] == [(0, 2.0), (1, 0.25)]
        assert [(e.step, e.value) for e in scalars["curve/score"]] == [(1, -1.5)]
        found = self.hparams(events)
        assert (found["key"], found["method"], found["seed"]) == (KEY, "rem", 3.0)
        assert (found["settings/lr"], found["settings/layers"]) == (0.5, "['a', 'b']")
        assert found["recipe/optimiser/lr"] == 0.1
        events = self.read(failed)
        assert events.Scalars("failed")[0].value == 1.0
        assert self.hparams(events)["status"] == "failed"
        text = events.Tensors("error/text_summary")[0].tensor_proto.string_val[0]
        assert b"Diverged: the loss is nan" in text

    def test_a_second_attempt_is_a_run_of_its_own(self, tmp_path: Path) -> None:
        tracker = open_tracker(f"tensorboard:{tmp_path / 'elsewhere'}", tmp_path / "out")
        for _ in range(3):
            tracker.log(FAILED)
        names = [path.name for path in sorted((tmp_path / "elsewhere").iterdir())]
        assert [name.removeprefix("npo-classes-seed-0-ffffffff") for name in names] == ["", "-2", "-3"]
        assert not (tmp_path / "out").exists()

    def test_a_coordinator_that_srun_started_as_its_second_task(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rank_zero = importlib.import_module("lightning_utilities.core.rank_zero")
        monkeypatch.setattr(rank_zero.rank_zero_only, "rank", 1)
        open_tracker("tensorboard", tmp_path).log(DONE)
        assert len(list((tmp_path / "tensorboard").iterdir())) == 1


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two MLflow runs; making the database takes seconds."""
    folder = tmp_path_factory.mktemp("sweep")
    tracker = open_tracker(f"mlflow:{folder}", folder / "out")
    assert tracker.place == f"sqlite:///{folder / 'mlflow.db'}"
    tracker.log(DONE)
    tracker.log(FAILED)
    return folder


@needs("pytorch_lightning")
@needs("mlflow")
class TestMLflow:
    def runs(self, tracked: Path) -> tuple[Any, dict[str, Any]]:
        client = importlib.import_module("mlflow.tracking").MlflowClient(f"sqlite:///{tracked / 'mlflow.db'}")
        experiment = client.get_experiment_by_name("expunge")
        assert experiment.artifact_location == (tracked / "mlflow-artifacts").as_uri()
        return client, {
            run.data.params["method"]: run for run in client.search_runs([experiment.experiment_id])
        }

    def test_done(self, tracked: Path) -> None:
        client, runs = self.runs(tracked)
        run = runs["rem"]
        assert (run.info.status, run.info.run_name) == ("FINISHED", run_name(DONE))
        assert {name: run.data.metrics[name] for name in RESULTS} == RESULTS
        history = client.get_metric_history(run.info.run_id, "curve/loss")
        assert [(point.step, point.value) for point in history] == [(0, 2.0), (1, 0.25)]
        assert run.data.tags["expunge.key"] == run.data.params["key"] == KEY
        assert (run.data.params["settings/lr"], run.data.params["recipe/optimiser/lr"]) == ("0.5", "0.1")
        assert not (tracked / "out").exists()

    def test_failed(self, tracked: Path) -> None:
        run = self.runs(tracked)[1]["npo"]
        assert run.info.status == "FAILED"
        assert run.data.tags["error"] == FAILED.error
        assert run.data.params["error"] == "Diverged: the loss is nan"
        assert run.data.metrics == {"failed": 1.0}

    def test_a_second_sweep_adds_to_the_experiment(
        self, tracked: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tracked / 'mlflow.db'}")
        tracker = open_tracker("mlflow", tracked / "unused")
        tracker.log(Record(**{**FAILED.to_row(), "method": "third", "log": 1200 * [{"loss": 1.0}]}))
        client, runs = self.runs(tracked)
        assert set(runs) == {"rem", "npo", "third"}
        assert len(client.get_metric_history(runs["third"].info.run_id, "curve/loss")) == 1200

    def test_no_usage_data(self, tracked: Path) -> None:
        assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"

    def test_no_server(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        with pytest.raises(InvalidInput, match=r"tracker 'mlflow:http://127.0.0.1:9' cannot be opened \("):
            open_tracker("mlflow:http://127.0.0.1:9", tmp_path)

    def test_a_store_lost_in_between(self, tracked: Path, tmp_path: Path) -> None:
        copy = tmp_path / "mlflow.db"
        copy.write_bytes((tracked / "mlflow.db").read_bytes())
        said: list[str] = []
        trackers = Trackers([f"mlflow:{tmp_path}"], tmp_path, said.append)
        copy.write_bytes(b"no database" * 1000)
        for _ in range(2):
            trackers.log(DONE)
        assert len(said) == 1
        assert set(trackers.logged.values()) == {0}


@needs("pytorch_lightning")
@needs("wandb")
class TestWeightsAndBiases:
    def read(self, path: Path) -> Iterator[Any]:
        """The entries of an offline run: LevelDB's log format behind a header of seven bytes."""
        entry = importlib.import_module("wandb.proto.wandb_internal_pb2").Record
        data, place, parts = path.read_bytes(), 7, b""
        while place + 7 <= len(data):
            if 32768 - place % 32768 < 7:
                place += 32768 - place % 32768
                continue
            length, kind = struct.unpack("<HB", data[place + 4 : place + 7])
            parts += data[place + 7 : place + 7 + length]
            place += 7 + length
            if kind in (1, 4):  # whole, or the last part
                yield entry.FromString(parts)
                parts = b""

    def test_offline(self, tmp_path: Path, connections: list[bytes]) -> None:
        tracker = open_tracker("wandb", tmp_path)
        assert tracker.place.startswith(f"{tmp_path / 'wandb'}; 'wandb sync'")
        tracker.log(DONE)
        tracker.log(FAILED)
        files = sorted((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))
        runs = {}
        for file in files:
            entries = list(self.read(file))
            run = next(entry.run for entry in entries if entry.HasField("run"))
            runs[run.display_name] = entries
            assert run.project == "expunge"
        assert set(runs) == {run_name(DONE), run_name(FAILED)}
        done, failed = (str(runs[run_name(record)]) for record in (DONE, FAILED))
        for word in (KEY, "curve/loss", "healed", "forget_accuracy", "optimiser"):
            assert word in done
        assert "Diverged: the loss is nan" in failed
        exits = [entry.exit.exit_code for entry in runs[run_name(FAILED)] if entry.HasField("exit")]
        assert exits == [1]
        assert connections == []

    def test_a_server_without_a_key(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidInput, match=r"'wandb:https://w.org' needs the key .*; set WANDB_API_KEY"):
            open_tracker("wandb:https://w.org", tmp_path)

    def test_a_server_that_does_not_answer(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WANDB_API_KEY", 40 * "a")
        tracker = open_tracker("wandb:http://127.0.0.1:9", tmp_path)
        assert tracker.place == "expunge at http://127.0.0.1:9"
