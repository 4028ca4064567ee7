from __future__ import annotations

import copy

import pytest
import torch

from expunge.methods.base import Method
from expunge.methods.retrain import Retrain
from expunge.methods.retrain_corrected import RetrainCorrected
from expunge.testing.method_contract import vector_case


@pytest.mark.parametrize("method", [Retrain(), RetrainCorrected()])
def test_what_is_frozen_in_part_stays_and_as_a_whole_is_trained(method: Method) -> None:
    case = vector_case()
    expected = method(case.model, case.request(method)).model
    for count in (4, len(list(case.model.parameters()))):
        frozen = copy.deepcopy(case.model)
        for parameter in list(frozen.parameters())[:count]:
            parameter.requires_grad_(False)
        flags = [parameter.requires_grad for parameter in frozen.parameters()]
        result = method(frozen, case.request(method)).model
        whole = not any(flags)
        for ours, before, trained in zip(
            result.parameters(), case.model.parameters(), expected.parameters(), strict=True
        ):
            assert torch.equal(ours, trained if whole else before) != ours.requires_grad
        assert [parameter.requires_grad for parameter in result.parameters()] == flags
        assert [parameter.requires_grad for parameter in frozen.parameters()] == flags
