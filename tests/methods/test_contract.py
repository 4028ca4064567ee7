from __future__ import annotations

from typing import Any

import pytest

from expunge.api import load_method
from expunge.registry import METHODS
from expunge.testing.method_contract import MethodContract

FAST: dict[str, Any] = {"batch_size": 32, "lr": 0.02}
REM: dict[str, Any] = {**FAST, "rounds": 2, "flush_passes": 20}

# name -> (settings, margin)
CASES: dict[str, tuple[dict[str, Any], float | None]] = {
    "none": ({}, None),
    "retrain": ({}, 0.3),
    "retrain_corrected": ({}, 0.3),
    "finetune": ({**FAST, "lr": 0.2, "epochs": 10}, 0.3),
    "gradient_ascent": ({**FAST, "passes": 20}, 0.3),
    "npo": ({**FAST, "passes": 20}, 0.3),
    "rem": (REM, 0.3),
    "rem_ideal": (REM, 0.3),
    "rem_without_redirection": (REM, 0.3),
    "rem_without_removal": ({**REM, "lr": 0.1, "rounds": 4}, 0.1),
    "rem_ascent": ({**REM, "lr": 0.0005}, 0.3),
}


class TestContract(MethodContract):
    @pytest.fixture(autouse=True, params=METHODS.names())
    def _choose(self, request: pytest.FixtureRequest) -> None:
        settings, self.margin = CASES[request.param]
        self.method = load_method(request.param, **settings)


def test_every_method_has_a_case() -> None:
    assert set(CASES) == set(METHODS.names())
