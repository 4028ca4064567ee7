"""The direction of imports: what a part of the package may build on."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import expunge

ROOT = Path(expunge.__file__).parent

CORE = {"errors", "optional", "processes", "seeding", "fingerprint", "user_modules", "registry", "settings"}
BELOW_METHODS = CORE | {"data", "models", "tasks", "training", "capacity"}
LIBRARY = BELOW_METHODS | {"choice", "methods", "metrics", "api"}

# part -> the other parts it may import
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "seeding": {"errors"},
    "fingerprint": {"errors"},
    "user_modules": {"fingerprint"},
    "registry": {"errors"},
    "choice": {"errors"},
    "settings": {"errors"},
    "data": CORE,
    "models": {"errors", "seeding"},
    "tasks": CORE | {"data"},
    # what prepares a first training may widen the network
    "training": CORE | {"data", "models", "capacity"},
    "capacity": {"errors", "seeding", "models"},
    "methods": BELOW_METHODS,
    "statistics": {"errors"},
    "metrics": {"errors", "seeding", "data", "models", "tasks", "training"},
    "result": BELOW_METHODS | {"choice", "methods", "evaluation", "results", "store"},
    "api": BELOW_METHODS | {"choice", "methods", "result"},
    "jobs": LIBRARY | {"inputs", "repair", "result"},
    "testing": BELOW_METHODS | {"methods"},
    "store": {"errors"},
    "evaluation": LIBRARY - {"api"} | {"store", "statistics"},
    "engine": {"errors", "processes", "store"},
    "optional": {"errors"},
    "processes": set(),
    "populations": LIBRARY | {"store", "engine"},
    "sweep": LIBRARY | {"store", "engine", "populations", "evaluation", "grids"},
    "recording": {"errors", "store"},
    "detection": LIBRARY | {"store", "recording"},
    "inputs": LIBRARY | {"store"},
    "repair": LIBRARY | {"store", "inputs", "detection", "recording", "evaluation", "results", "populations"},
    "review": {"errors", "optional", "data", "store", "inputs", "results"},
    "results": {"errors", "registry", "choice", "tasks", "store", "statistics"},
    "grids": set(),
    "cli": LIBRARY
    | {"store", "sweep", "results", "grids", "inputs", "repair", "detection", "evaluation", "review"},
    "__main__": {"cli"},
}


def part_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def at_run_time(node: ast.AST) -> Iterator[ast.AST]:
    """Every node, but for what only a type checker reads."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            yield from (inner for statement in child.orelse for inner in (statement, *at_run_time(statement)))
            continue
        yield child
        yield from at_run_time(child)


def modules_imported(path: Path) -> set[str]:
    """Absolute names of what a file imports, inside functions too."""
    found = set()
    for node in at_run_time(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} imports relatively"
            assert node.module is not None
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


FILES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def test_data_flows_one_way() -> None:
    against: list[str] = []
    for path in FILES:
        part = part_of(path)
        assert part in ALLOWED, f"say in ALLOWED what the new part {part!r} may import"
        used = {name.split(".")[1] for name in modules_imported(path) if name.startswith("expunge.")}
        wrong = used & set(ALLOWED) - {part} - ALLOWED[part]
        against += [f"{path.relative_to(ROOT)} imports {name}" for name in sorted(wrong)]
    assert against == []


def test_the_order_has_no_cycle() -> None:
    left = dict(ALLOWED)
    while left:
        free = [part for part, needed in left.items() if not needed & set(left) - {part}]
        assert free, f"cycle among {sorted(left)}"
        for part in free:
            del left[part]


def test_every_part_is_there() -> None:
    assert {part_of(path) for path in FILES} <= set(ALLOWED)
    assert {"errors", "data", "methods", "store", "results"} <= {part_of(path) for path in FILES}


def test_methods_know_no_metric() -> None:
    """Neither a method nor what it stands on can read the truth through a metric."""
    for part in BELOW_METHODS | {"methods"}:
        assert not ALLOWED[part] & {"metrics", "evaluation"}


def test_results_need_no_torch() -> None:
    results = [
        f"expunge.results.{path.stem}"
        for path in FILES
        if part_of(path) == "results" and path.stem != "__init__"
    ]
    modules = [
        "expunge",
        "expunge.errors",
        "expunge.registry",
        "expunge.choice",
        "expunge.store.database",
        "expunge.store.record",
        *results,
    ]
    assert loaded(modules, ("torch",)) == set()


@pytest.mark.parametrize("words", [["--help"], ["list"], ["report", "--help"]])
def test_what_answers_at_once_loads_nothing_large(words: list[str]) -> None:
    code = f"import sys\nfrom expunge.cli import main\nsys.argv = ['expunge', *{words}]\n"
    code += "try: main()\nexcept SystemExit: pass"
    assert loaded([], ("torch", "pandas", "altair", "jinja2"), code) == set()


def test_repairs_and_sweeps_start_without_what_only_some_measurements_need() -> None:
    modules = ["expunge.repair.clean", "expunge.repair.find", "expunge.sweep.execute", "expunge.sweep.run"]
    assert loaded(modules, ("sklearn", "scipy.stats", "pandas")) == set()


def loaded(modules: list[str], wanted: tuple[str, ...], code: str = "") -> set[str]:
    """Which of ``wanted`` a new interpreter has loaded after importing ``modules`` and running ``code``."""
    lines = [*(f"import {module}" for module in modules), code, "import sys"]
    lines.append(f"print('loaded', *(name for name in {wanted} if name in sys.modules))")
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True
    )
    return set(done.stdout.strip().splitlines()[-1].split()[1:])


def test_the_truth_is_read_by_evaluation_and_oracles_alone() -> None:
    readers = {
        str(path.relative_to(ROOT))
        for path in FILES
        if any(
            isinstance(node, ast.Attribute) and node.attr == "truth"
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        )
    }
    methods = {reader for reader in readers if reader.startswith(("methods", "training", "capacity"))}
    assert methods == {"methods/rem.py", "methods/retrain_corrected.py"}
