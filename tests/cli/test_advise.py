from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from expunge.cli.advise import advise_command
from expunge.errors import InvalidInput, StoreError, UnknownName
from expunge.store.record import Record
from expunge.store.store import Store

app = typer.Typer()
app.command()(advise_command)


def run(*words: str) -> str:
    result = CliRunner().invoke(app, list(words), catch_exceptions=False, env={"COLUMNS": "80"})
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def test_a_method_with_reasons() -> None:
    told = run("--discovery", "0.1", "--regularity", "poison")
    assert told.startswith("Use relearn: it costs ")
    assert "heals bad rows that the list does not name too" in told
    assert "It reads: forget, retain." in told
    assert "Retraining without the known part reaches 0.0 % Utility x Healed at poison, 10% known." in told
    assert "caution: It rests on one data set (digits)" in told
    assert "docs/results/digits-methods.csv" in told
    assert "does nothing: none" in told


def test_a_complete_list_says_what_retraining_would_cost() -> None:
    told = run("--discovery", "1.0")
    assert "all bad rows are listed, so that retraining without them heals as much; relearning costs" in told
    assert "Retraining without the known part reaches 9" in told


def test_a_choice_that_does_not_work() -> None:
    told = run("--no-retain", "--regularity", "random", "--discovery", "0.1")
    assert told.startswith("Use delete: without the remaining data nothing can be repaired")
    assert "In these records it reaches 35.5 % Utility x Healed" in told
    assert "caution: That is under the 50.0 % that count as working" in told


def test_without_the_listed_examples() -> None:
    assert run("--no-forget-data", "--discovery", "1.0").startswith(
        "Use retrain: the listed examples are gone"
    )
    told = run("--no-forget-data", "--discovery", "1.0", "--budget", "0.3")
    assert told.startswith("Use l1_sparse: ")
    assert "is over the budget" in told


def test_a_store_of_ones_own(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        for method, base in (("relearn", 0.9), ("rem", 0.8), ("[b]npo", 0.95)):
            for seed in range(3):
                store.database.add(
                    Record(
                        key=f"{method}{seed}", status="done", data="mine", regularity=0.0, discovery=0.1,
                        model="mlp", method=method, seed=seed, uxh=base + 0.01 * seed, seconds=1.0,
                    )
                )  # fmt: skip
    told = run("--store", str(tmp_path))
    assert "In these records it reaches 91.0 %" in told
    assert "Best of the others: rem, 81.0 %" in told
    assert "Over the seeds the difference to rem holds (paired t-test, p =" in told
    assert "is not installed here: [b]npo" in told
    assert f"store {tmp_path}" in told.replace(" /", "/") or str(tmp_path) in told.replace(" ", "")


def test_a_cheaper_method_is_named(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        for method, uxh, cost in (("relearn", 0.9, 800), ("npo", 0.89, 10), ("retrain", 0.1, 1000)):
            store.database.add(
                Record(
                    key=method, status="done", data="mine", regularity=0.0, discovery=0.1, model="mlp",
                    method=method, seed=0, uxh=uxh, seconds=cost / 10, sample_gradients=cost,
                )
            )  # fmt: skip
    told = run("--store", str(tmp_path))
    assert "it costs 80% of the first training" in told
    assert "Nearly as good and cheaper: npo" in told


@pytest.mark.parametrize(
    ("words", "kind", "message"),
    [
        (["--discovery", "some"], InvalidInput, "takes a number in .* or 'unknown', got 'some'"),
        (["--discovery", "10"], InvalidInput, "divide a percentage by 100"),
        (["--regularity", "posion"], UnknownName, "unknown regularity 'posion'"),
        (["--budget", "-1"], InvalidInput, "must be positive"),
        (["--no-retain", "--no-forget-data"], InvalidInput, "get one of them back"),
        (["--store", "/no/such/store"], StoreError, "there is no store"),
    ],
)
def test_bad_options(words: list[str], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        run(*words)
