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
    assert told.startswith("Use rem: 93.6 % Utility x Healed at poison, 10% known.")
    assert "It reads: forget, retain. Cost: 85 % of a retraining" in told
    assert "Runner-up: rem_without_redirection, 93.5 %" in told
    assert "Over the seeds the two are not told apart (paired t-test, p = 0.42)" in told
    assert "caution: It rests on one data set (digits)" in told
    assert "caution: These are figures of 3 seeds, 7, 8 and 9." in told
    assert "docs/results/digits-all.csv" in told
    assert "is an oracle: retrain_corrected" in told


def test_nothing_known_rests_on_the_whole_map() -> None:
    told = run()
    assert (
        "Use rem_without_redirection: 94.3 % Utility x Healed on average over 9 cells, at worst 84.9 %"
        in told
    )
    assert "Runner-up: rem, 94.0 % Utility x Healed on average over 9 cells, at worst 84.4 %" in told


def test_when_nothing_works() -> None:
    told = run("--no-retain", "--regularity", "random", "--discovery", "0.1")
    assert told.startswith(
        "Retrain: no method that can be used here works. The best of them, delete, reaches 33.7 %"
    )
    assert "Retraining without the known part reaches 12.7 % in these cells: it learns again" in told
    assert "Retraining itself needs the remaining training data." in told


def test_retraining_over_the_budget() -> None:
    told = run("--no-forget-data", "--discovery", "1.0", "--budget", "0.3")
    assert "Retraining without the known part reaches 98.0 % in these cells." in told
    assert "Retraining itself is over the budget." in told
    assert run("--no-forget-data", "--discovery", "1.0").startswith("Use retrain: 98.0 %")


def test_a_store_of_ones_own(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        for method, base in (("rem", 0.9), ("[b]npo", 0.8), ("npo", 0.7)):
            for seed in range(3):
                store.database.add(
                    Record(
                        key=f"{method}{seed}", status="done", data="mine", regularity=0.0, discovery=0.1,
                        model="mlp", method=method, seed=seed, uxh=base + 0.01 * seed, seconds=1.0,
                    )
                )  # fmt: skip
    told = run("--store", str(tmp_path))
    assert told.startswith("Use rem: 91.0 %")
    assert "Over the seeds the difference holds" in told
    assert "is not installed here: [b]npo" in told
    assert f"store {tmp_path}" in told.replace(" /", "/") or str(tmp_path) in told.replace(" ", "")


def test_a_cheaper_method_is_named(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        for method, uxh, cost in (("rem", 0.9, 800), ("npo", 0.89, 10), ("retrain", 0.1, 1000)):
            store.database.add(
                Record(
                    key=method, status="done", data="mine", regularity=0.0, discovery=0.1, model="mlp",
                    method=method, seed=0, uxh=uxh, seconds=cost / 10, sample_gradients=cost,
                )
            )  # fmt: skip
    assert "Nearly as good and cheaper: npo" in run("--store", str(tmp_path))


@pytest.mark.parametrize(
    ("words", "kind", "message"),
    [
        (["--discovery", "some"], InvalidInput, "takes a number in .* or 'unknown', got 'some'"),
        (["--discovery", "10"], InvalidInput, "divide a percentage by 100"),
        (["--regularity", "posion"], UnknownName, "unknown regularity 'posion'"),
        (["--budget", "-1"], InvalidInput, "must be positive"),
        (["--store", "/no/such/store"], StoreError, "there is no store"),
    ],
)
def test_bad_options(words: list[str], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        run(*words)
