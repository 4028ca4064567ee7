from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from expunge.errors import DataError, InvalidInput, StoreError
from expunge.recording.recording import Recording, read_recording

LABELS = torch.tensor([0, 1, 2, 0, 1])


def test_what_is_kept_is_what_a_loop_over_examples_counts(tmp_path: Path) -> None:
    draw = torch.Generator().manual_seed(0)
    path = tmp_path / "a.safetensors"
    seen: dict[int, list[torch.Tensor]] = {i: [] for i in range(5)}
    with Recording(LABELS.tolist(), path) as recording:
        for _ in range(4):
            index = torch.randint(0, 5, (6,), generator=draw)  # some stand in a batch twice
            index[:5] = torch.arange(5)
            logits = torch.randn(6, 3, generator=draw)
            recording.see(logits, index)
            for i, row in zip(index.tolist(), logits, strict=True):
                seen[i].append(row.softmax(0))
    found = read_recording(path, LABELS, 3)
    for i, rows in seen.items():
        y = int(LABELS[i])
        margins = [max(float(p[j]) for j in range(3) if j != y) - float(p[y]) for p in rows]
        assert int(found["seen"][i]) == len(rows)
        assert int(found["wrong"][i]) == sum(int(p.argmax()) != y for p in rows)
        assert float(found["margin"][i]) == pytest.approx(sum(margins) / len(rows), abs=1e-5)
        assert torch.allclose(found["probabilities"][i], torch.stack(rows).mean(0), atol=1e-3)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_followed_loader_says_which_examples_they_are(tmp_path: Path, workers: int) -> None:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(10, 3, generator=draw)
    labels = torch.arange(10) % 3
    data = TensorDataset(torch.arange(10.0), labels)
    loader: Any = DataLoader(data, 4, shuffle=True, num_workers=workers, drop_last=True, generator=draw)
    sampler = loader.batch_sampler.sampler
    recording = Recording(labels, tmp_path / "a.safetensors")
    recording.follow(loader)
    counted = torch.zeros(10)
    for _ in range(3):
        for rows, _ in loader:
            counted[rows.long()] += 1
            recording.see(x[rows.long()])
    recording.release()
    assert loader.batch_sampler.sampler is sampler
    assert torch.equal(recording.seen, counted)
    assert torch.allclose(recording.total, x.softmax(1) * counted[:, None], atol=1e-5)


def test_the_file_is_written_where_training_breaks_off(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with pytest.raises(InvalidInput), Recording(LABELS, path) as recording:  # noqa: PT012
        recording.see(torch.zeros(5, 3), range(5))
        recording.see(torch.zeros(5), range(5))
    assert read_recording(path, LABELS, 3)["seen"].tolist() == [1.0] * 5


class Endless(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(range(3))


def test_bad_requests(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with pytest.raises(InvalidInput, match=r"a recording is a \.safetensors file, got .*a\.txt"):
        Recording(LABELS, tmp_path / "a.txt")
    with pytest.raises(InvalidInput, match="labels are integers of at least 0"):
        Recording([0.5, 1.0], path)  # type: ignore[list-item]
    recording = Recording(LABELS, path)
    with pytest.raises(InvalidInput, match="which examples these logits are of is not known; call follow"):
        recording.see(torch.zeros(2, 3))
    with pytest.raises(InvalidInput, match=r"2 positions in \[0, 5\), got \[4, 5\]"):
        recording.see(torch.zeros(2, 3), [4, 5])
    with pytest.raises(InvalidInput, match="label 2 has no logit: there are 2"):
        recording.see(torch.zeros(1, 2), [2])
    with pytest.raises(InvalidInput, match="DataLoader has no batch sampler over single examples"):
        recording.follow(DataLoader(Endless()))
    with pytest.raises(InvalidInput, match="reads 3 examples and 5 labels were given"):
        recording.follow(DataLoader(TensorDataset(torch.zeros(3))))


def test_a_file_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    recording = Recording(LABELS, path)
    recording.see(torch.zeros(4, 3), range(4))
    recording.save()
    with pytest.raises(DataError, match="1 examples were never seen"):
        read_recording(path, LABELS, 3)
    with pytest.raises(DataError, match="other labels than the 5 of the data, 2 differ"):
        read_recording(path, torch.tensor([0, 2, 1, 0, 1]), 3)
    with pytest.raises(DataError, match="knows 3 classes and the data has 4"):
        read_recording(path, LABELS, 4)
    (tmp_path / "b.safetensors").write_bytes(b"no")
    with pytest.raises(StoreError, match="is no recording of a training"):
        read_recording(tmp_path / "b.safetensors", LABELS, 3)
