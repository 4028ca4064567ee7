"""The trackers that Lightning has loggers for; their packages are imported when one is made."""

from __future__ import annotations

import itertools
import os
import re
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from expunge.errors import InvalidInput
from expunge.optional import load_extra
from expunge.store.record import Record
from expunge.sweep.trackers import parameters, results, run_name

PROJECT = "expunge"
"""Name of the experiment (MLflow) or project (Weights & Biases) that the runs belong to."""
_MOST_METRICS = 1000
"""What MLflow takes in one request."""


class LightningTracker:
    """A run of a Lightning ``Logger`` for each record: what was run, what came out, its learning curve.

    A tracker of one's own derives from it, sets ``place`` and makes the logger; ``--log module:Class`` names it.

    Args:
        target: what follows the name in ``--log``; None if nothing does.
        folder: folder of the sweep.

    Raises:
        InvalidInput: a package is not installed.
    """

    place: str

    def __init__(self, target: str | None, folder: Path) -> None: ...

    def logger(self, record: Record) -> Any:
        """Return the logger of one run."""
        raise NotImplementedError

    def log(self, record: Record) -> None:
        """Log one record as one run."""
        logger = self.logger(record)
        self.log_results(logger, record)
        self.log_curve(logger, record)
        self.end(logger, record)

    def log_results(self, logger: Any, record: Record) -> None:
        """Log what was run and what came out."""
        logger.log_hyperparams(parameters(record))
        logger.log_metrics(results(record))

    def log_curve(self, logger: Any, record: Record) -> None:
        """Log the learning curve as ``curve/NAME``; a row's step is its place, as rows name epochs differently."""
        for step, row in enumerate(record.log):
            logger.log_metrics({f"curve/{name}": value for name, value in row.items()}, step=step)

    def end(self, logger: Any, record: Record) -> None:
        """End the run."""
        logger.finalize("success" if record.status == "done" else "failed")


class TensorBoard(LightningTracker):
    """Event files below ``<folder>/tensorboard`` or in the folder ``target``, one folder for each run.

    Read them with ``tensorboard --logdir``; its HPARAMS tab is the table of the cells.
    """

    def __init__(self, target: str | None, folder: Path) -> None:
        _needs("tensorboard", "tensorboard")
        self._make = _lightning("lightning_fabric.loggers", "TensorBoardLogger", "tensorboard")
        self._root = (folder / "tensorboard" if target is None else Path(target).expanduser()).absolute()
        self._root.mkdir(parents=True, exist_ok=True)
        self.place = str(self._root)

    def logger(self, record: Record) -> Any:
        """Return one with a folder of its own: two attempts at one cell are two runs."""
        name = re.sub(r"[^\w.=-]+", "-", run_name(record))
        taken = {path.name for path in self._root.glob(f"{name}*")}
        names = (name if number == 1 else f"{name}-{number}" for number in itertools.count(1))
        return self._make(self._root, name="", version=next(new for new in names if new not in taken))

    def log_results(self, logger: Any, record: Record) -> None:
        """Log both together, as the table of the cells needs them."""
        logger.log_hyperparams(parameters(record), results(record), step=0)
        if record.error:
            logger.experiment.add_text("error", textwrap.indent(record.error, "    "))


class MLflow(LightningTracker):
    """Runs of the experiment "expunge", by default in the SQLite file ``<folder>/mlflow.db``.

    ``target``: another folder, or a tracking URI; by default $MLFLOW_TRACKING_URI if it is set.
    """

    def __init__(self, target: str | None, folder: Path) -> None:
        # Read when mlflow is imported. Usage data would go to a server that nobody named; lines about each
        # run would tear the progress bar; by mlflow's defaults a lost server stops the caller for minutes.
        for name, value in (
            ("MLFLOW_DISABLE_TELEMETRY", "true"),
            ("MLFLOW_LOGGING_LEVEL", "WARNING"),
            ("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true"),
            ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2"),
            ("MLFLOW_HTTP_REQUEST_TIMEOUT", "20"),
        ):
            os.environ.setdefault(name, value)
        client_of = _needs("mlflow.tracking", "mlflow").MlflowClient
        self._metric = _needs("mlflow.entities", "mlflow").Metric
        self._make = _lightning("pytorch_lightning.loggers", "MLFlowLogger", "mlflow")
        given = target or os.environ.get("MLFLOW_TRACKING_URI") or str(folder)
        artifacts = None
        if given == "databricks" or re.match(r"[a-z+]{2,}:", given):
            self._uri = given
        else:
            root = Path(given).expanduser().absolute()
            root.mkdir(parents=True, exist_ok=True)
            self._uri, artifacts = f"sqlite:///{root / 'mlflow.db'}", (root / "mlflow-artifacts").as_uri()
        self.place = re.sub(r"//[^/@]*@", "//", self._uri)  # without a password
        client = client_of(self._uri)
        found = client.get_experiment_by_name(PROJECT)
        if found is None or found.lifecycle_stage == "deleted":
            try:
                client.create_experiment(PROJECT, artifact_location=artifacts)
            except Exception:  # another sweep may have made it in between
                if found is not None or client.get_experiment_by_name(PROJECT) is None:
                    raise

    def logger(self, record: Record) -> Any:
        """Return one with the record's key and error as tags."""
        tags = {"expunge.key": record.key} | ({"error": record.error[-4000:]} if record.error else {})
        return self._make(PROJECT, run_name=run_name(record), tracking_uri=self._uri, tags=tags)

    def log_curve(self, logger: Any, record: Record) -> None:
        """Log it in one transaction: row by row it takes a second in SQLite."""
        now = int(1000 * time.time())
        points = [
            self._metric(f"curve/{name}", value, now, step)
            for step, row in enumerate(record.log)
            for name, value in row.items()
        ]
        for start in range(0, len(points), _MOST_METRICS):
            logger.experiment.log_batch(logger.run_id, metrics=points[start : start + _MOST_METRICS])


class WeightsAndBiases(LightningTracker):
    """Runs of the project "expunge" ($WANDB_PROJECT): on the server if $WANDB_API_KEY is set, else offline.

    Offline runs lie in ``<folder>/wandb``; ``wandb sync`` uploads them. ``target``: another folder, or the URL of a
    server of one's own.

    Raises:
        InvalidInput: there is a server's URL but no key.
    """

    def __init__(self, target: str | None, folder: Path) -> None:
        # Error reports would go to a server that nobody named.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        wandb = _needs("wandb", "wandb")
        self._make = _lightning("pytorch_lightning.loggers", "WandbLogger", "wandb")
        online = bool(os.environ.get("WANDB_API_KEY"))
        url = target if target is not None and "://" in target else None
        if url and not online:
            raise InvalidInput(f"tracker 'wandb:{url}' needs the key of an account there; set WANDB_API_KEY")
        self._root = (folder if target is None or url else Path(target).expanduser()).absolute()
        self._root.mkdir(parents=True, exist_ok=True)
        # The sweep's own output and machine are no property of a cell. A lost server ends in an error
        # within a minute; by default wandb tries on for ever.
        settings = {
            "silent": True, "console": "off", "disable_git": True, "x_disable_meta": True, "x_disable_stats": True,
            "init_timeout": 30.0, "finish_timeout": 60.0, "finish_timeout_raises": True,
            **({"base_url": url} if url else {}), **({} if online else {"mode": "offline"}),
        }  # fmt: skip
        self._options = {"offline": not online, "settings": wandb.Settings(**settings)}
        wandb.setup(settings=self._options["settings"])  # what is said before a run begins is silenced too
        self._project = os.environ.get("WANDB_PROJECT") or PROJECT
        self.place = f"{self._project} at {url or os.environ.get('WANDB_BASE_URL') or 'wandb.ai'}"
        if not online:
            self.place = f"{self._root / 'wandb'}; 'wandb sync' of the folders there uploads them"

    def logger(self, record: Record) -> Any:
        """Return one that tags the run with its method."""
        own = {"save_dir": self._root, "project": self._project, "tags": [record.method]}
        return self._make(run_name(record), **own, **self._options)

    def end(self, logger: Any, record: Record) -> None:
        """End the run, with its error if it failed."""
        if record.error:
            logger.experiment.summary["error"] = record.error
        logger.experiment.finish(exit_code=0 if record.status == "done" else 1)


def _needs(module: str, extra: str) -> Any:
    return load_extra(module, module.partition(".")[0], extra, f"--log {extra}")


def _lightning(module: str, name: str, extra: str) -> Callable[..., Any]:
    made: Callable[..., Any] = getattr(_needs(module, extra), name)
    # Every coordinator logs its own cells. Where srun started several, Lightning would take all but the
    # first for helpers and keep them silent.
    _needs("lightning_utilities.core.rank_zero", extra).rank_zero_only.rank = 0
    return made
