from __future__ import annotations

import copy

import pytest
import torch

from expunge.methods.base import Method
from expunge.methods.retrain import Retrain
from expunge.methods.retrain_corrected import RetrainCorrected
from expunge.testing.method_contract import vector_case


@pytest.mark.parametrize("method", [Retrain(), RetrainCorrected()])
def test_frozen_parameters_are_trained_with_the_rest(method: Method) -> None:
    case = vector_case()
    frozen = copy.deepcopy(case.model)
    for parameter in list(frozen.parameters())[:4]:
        parameter.requires_grad_(False)
    flags = [parameter.requires_grad for parameter in frozen.parameters()]
    expected = method(case.model, case.request(method)).model
    result = method(frozen, case.request(method)).model
    assert all(
        torch.equal(ours, theirs)
        for ours, theirs in zip(result.parameters(), expected.parameters(), strict=True)
    )
    assert [parameter.requires_grad for parameter in result.parameters()] == flags
    assert [parameter.requires_grad for parameter in frozen.parameters()] == flags
