"""Python files of the user: loaded as modules of their own, and again in other processes."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType

from expunge.fingerprint import fingerprint

_PREFIX = "expunge_user_"


def load_file(path: Path) -> ModuleType:
    """Run ``path`` as a module under a name of its own, by which classes of the file are found and copied."""
    return _load(f"{_PREFIX}{fingerprint(str(path.resolve()))}", path)


def loaded_files() -> dict[str, str]:
    """Return name -> path of all files that this process has loaded so."""
    return {name: str(module.__file__) for name, module in sys.modules.items() if name.startswith(_PREFIX)}


def load_again(files: Mapping[str, str]) -> None:
    """Load what :func:`loaded_files` gave in another process, so that objects of these classes can be read here."""
    for name, path in files.items():
        with importable(Path(path).parent):
            _load(name, Path(path))


@contextlib.contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Let modules in ``folder`` be imported within the block."""
    place = str(folder.expanduser().resolve())
    sys.path.insert(0, place)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(place)


def _load(name: str, path: Path) -> ModuleType:
    found = importlib.util.spec_from_file_location(name, path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    try:
        found.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
