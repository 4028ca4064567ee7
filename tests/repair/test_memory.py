from __future__ import annotations

import pytest
import torch

from expunge.api import load_method
from expunge.errors import ExpungeError, InvalidInput
from expunge.repair.loaded import enough_memory, smaller


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
        ),
    ],
)
def test_the_setting_that_lowers_it_is_named(error: Exception) -> None:
    remedy = smaller(load_method("rem", batch_size=64))
    with (
        pytest.raises(
            ExpungeError, match=r"out of memory while unlearning; .*--set batch_size=32 \(it was 64\)"
        ),
        enough_memory("unlearning", remedy),
    ):
        raise error


def test_other_errors_stay() -> None:
    with pytest.raises(RuntimeError, match="shapes"), enough_memory("unlearning", ""):
        raise RuntimeError("shapes differ")
    with pytest.raises(InvalidInput, match="mine"), enough_memory("unlearning", ""):
        raise InvalidInput("mine, out of memory")


def test_what_a_method_without_batches_is_told() -> None:
    assert smaller(load_method("logit_mask")) == "use --device cpu"
    assert "--set spare=0.5" in smaller(load_method("rem"))
    assert "spare" not in smaller(load_method("npo"))
