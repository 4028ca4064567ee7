"""Calling a function in one process per device, through Lightning Fabric."""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import random
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

from expunge.errors import ExpungeError, InvalidInput
from expunge.processes import start_method, take_over
from expunge.training.numerics import Devices, Numerics
from expunge.training.team import Team, member_of
from expunge.user_modules import load_again, loaded_files

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_Result = TypeVar("_Result")
_PRELOADED = ("lightning_fabric", "expunge.training.loop", "expunge.methods.base")
"""What every process imports; with a server that has imported them, all but the first start at once."""


def launch(numerics: Numerics, function: Callable[..., _Result], *args: Any) -> _Result:
    """Return what ``function(*args)`` returns when every device of ``numerics`` has a process that calls it.

    The trainings within share their steps; all else is done by every process alike. The first one's result is
    returned. Arguments and result go through a temporary file, tensors to the device of their reader. Starting the
    processes takes about ten seconds; on the processors of a Linux machine so does the first start alone.

    Raises:
        InvalidInput: fewer devices than asked for, arguments that cannot be handed over, Fabric is not installed.
        ExpungeError: a process failed; an error of this package is raised as it was raised there. The other
            processes are ended.
    """
    check_count(numerics)
    with tempfile.TemporaryDirectory(prefix="expunge-") as name:
        folder = Path(name)
        try:
            torch.save((function, args), folder / "task")
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise InvalidInput(
                f"to train on several devices, model and data are handed to other processes, and this cannot be: "
                f"{error}; define classes and functions at the top of a module, or use one device"
            ) from error
        with _alone_in_the_environment(), _ended_children():
            fabric = _fabric(numerics.device, Devices(numerics.devices.count, "ddp"))
            try:
                fabric.launch(_Task(numerics, folder, loaded_files()))
            except (ProcessRaisedException, ProcessExitedException) as error:
                raise _failure(folder, error) from error
        result: _Result = torch.load(folder / "result", map_location=numerics.device, weights_only=False)
        return result


def check_count(numerics: Numerics) -> None:
    """Raise :class:`InvalidInput` where this process cannot start one for every device of ``numerics``."""
    devices = numerics.devices
    if numerics.device == "cuda" and torch.cuda.device_count() < devices.count:
        raise InvalidInput(
            f"{devices.count} devices were asked for, but torch sees {torch.cuda.device_count()} here; ask for fewer"
        )
    if "LOCAL_RANK" in os.environ:
        raise InvalidInput(
            "this process was itself started as one of several (LOCAL_RANK is set, as by torchrun); start it alone, "
            "the processes for the devices are started from it"
        )


def _fabric(kind: str, devices: Devices) -> Fabric:
    try:
        from lightning_fabric import Fabric
        from lightning_fabric.plugins.environments.lightning import LightningEnvironment
        from lightning_fabric.strategies.ddp import DDPStrategy
        from lightning_fabric.strategies.model_parallel import ModelParallelStrategy
    except ImportError as error:
        raise InvalidInput(
            f"several devices need lightning-fabric ({error}); install it: pip install lightning-fabric"
        ) from error
    strategy: DDPStrategy | ModelParallelStrategy
    if devices.sharded:
        from expunge.training.sharding import shard

        strategy = ModelParallelStrategy(shard, data_parallel_size=devices.count, tensor_parallel_size=1)
    else:
        # Steps of one method differ in what they reach: a flush leaves the added neurons out.
        # An accelerator is often in use here already, where Fabric refuses a server.
        method = start_method(*_PRELOADED) if kind == "cpu" else "spawn"
        strategy = DDPStrategy(start_method=method, find_unused_parameters=True)
    # Named, as Fabric would take a batch system it finds itself in for the one that starts the processes.
    return Fabric(accelerator=kind, devices=devices.count, strategy=strategy, plugins=LightningEnvironment())


@dataclass
class _Task:
    """What every process does; its error is left in ``folder``."""

    numerics: Numerics
    folder: Path
    files: dict[str, str]

    def __getstate__(self) -> dict[str, Any]:
        """Hand over the state of this process too: a forked one has that of the server."""
        return self.__dict__ | {
            "environment": dict(os.environ),
            "states": (random.getstate(), np.random.get_state(), torch.get_rng_state().numpy()),
            "strict": (
                torch.are_deterministic_algorithms_enabled(),
                torch.is_deterministic_algorithms_warn_only_enabled(),
            ),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Read it in a new process, before Fabric announces each of them."""
        take_over(state.pop("environment"))
        of_python, of_numpy, of_torch = state.pop("states")
        random.setstate(of_python)
        np.random.set_state(of_numpy)
        torch.set_rng_state(torch.from_numpy(of_torch))
        enabled, warn_only = state.pop("strict")
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        self.__dict__.update(state)
        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)

    def __call__(self, fabric: Fabric) -> None:
        threading.Thread(target=_end_with_the_starter, daemon=True).start()
        rank, devices = fabric.global_rank, self.numerics.devices
        try:
            load_again(self.files)
            function, args = torch.load(self.folder / "task", map_location=fabric.device, weights_only=False)
            if devices.sharded:
                # Only the other strategy starts processes by a function; this one finds them started.
                fabric = _fabric(self.numerics.device, devices)
                fabric.launch()
            torch.manual_seed(
                torch.initial_seed() + rank
            )  # a network's own draws are for other examples here
            with member_of(Team(fabric, devices.sharded)):
                result = function(*args)
            if rank == 0:
                torch.save(result, self.folder / "result")
            fabric.barrier()
        except BaseException as error:
            _leave(error, self.folder, rank)
            raise


def _end_with_the_starter() -> None:
    # torch asks the system for an interrupt then, which a process in the background may ignore.
    if (starter := multiprocessing.parent_process()) is not None:
        starter.join()
        os._exit(1)


def _leave(error: BaseException, place: Path, rank: int) -> None:
    written = traceback.format_exc(limit=-6)
    kept = error if isinstance(error, ExpungeError) else ExpungeError(f"on device {rank}: {written}")
    aside = place / f"failing-{rank}"
    with aside.open("wb") as file:
        pickle.dump(kept, file)
    aside.rename(place / f"error-{rank}")


def _failure(folder: Path, ended: ProcessRaisedException | ProcessExitedException) -> ExpungeError:
    """Return the error to raise; whoever waits for a process that is gone fails as well, and later."""
    left = sorted(folder.glob("error-*"), key=lambda path: path.stat().st_mtime_ns)
    errors: list[ExpungeError] = [pickle.loads(path.read_bytes()) for path in left]
    for error in errors:
        if type(error) is not ExpungeError:
            return error
    if errors and isinstance(ended, ProcessRaisedException):
        return errors[0]
    return ExpungeError(
        f"{ended} and left no error, but perhaps a message above; the processes of the other devices were ended. It "
        "may have been out of memory. A script that trains on several devices has to begin its work below "
        "if __name__ == '__main__'"
    )


@contextmanager
def _alone_in_the_environment() -> Iterator[None]:
    """Take out what would direct the processes to another training's port, and put it back."""
    ours = {"TORCH_CPP_LOG_LEVEL": "ERROR"}  # no word of every step that reaches all parameters
    former = {name: os.environ.pop(name, None) for name in ("MASTER_ADDR", "MASTER_PORT", *ours)}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name, value in former.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextmanager
def _ended_children() -> Iterator[None]:
    """End the processes that were started within the block if it is left before they are over."""
    before = set(multiprocessing.active_children())
    try:
        yield
    finally:
        for child in set(multiprocessing.active_children()) - before:
            child.kill()
            child.join()
