from __future__ import annotations

import pytest
import torch

from expunge.detection.noise_model import confident_count, noise_model


def drawn(matrix: list[list[float]], n: int = 9000) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Probabilities of a calibrated network, more and less sure, given labels by ``matrix``, and the true ones."""
    draw = torch.Generator().manual_seed(1)
    rows = torch.tensor(matrix, dtype=torch.float64)
    p = (4 * torch.randn(n, len(rows), generator=draw, dtype=torch.float64)).softmax(1)
    true = torch.multinomial(p, 1, generator=draw).squeeze(1)
    given = torch.multinomial(rows[true], 1, generator=draw).squeeze(1)
    return p, given, true


def test_the_matrix_and_the_number_are_those_that_the_labels_were_drawn_with() -> None:
    matrix = [[0.8, 0.2, 0.0], [0.0, 0.9, 0.1], [0.05, 0.05, 0.9]]
    p, given, true = drawn(matrix)
    found = noise_model(p, given)
    assert torch.allclose(found.matrix, torch.tensor(matrix, dtype=torch.float64), atol=0.05)
    assert found.count == pytest.approx(int((given != true).sum()), rel=0.15)


def test_the_probability_is_that_of_bayes() -> None:
    p, given, _ = drawn([[0.9, 0.1], [0.2, 0.8]])
    found = noise_model(p, given)
    q = (p.log() / found.temperature).softmax(1)
    for row in (0, 1, 17):
        joint = [float(q[row, z] * found.matrix[z, given[row]]) for z in (0, 1)]
        assert float(found.wrong[row]) == pytest.approx(joint[1 - int(given[row])] / sum(joint))
        assert int(found.best[row]) == joint.index(max(joint))


def test_doubt_is_not_error() -> None:
    p, given, _ = drawn([[1.0, 0.0], [0.0, 1.0]])
    assert float((p.argmax(1) != given).double().mean()) > 0.08
    assert noise_model(p, given).count < 0.02 * len(given)


def test_confident_learning_as_cleanlab_counts() -> None:
    count = pytest.importorskip("cleanlab.count")
    p, given, _ = drawn([[0.8, 0.2, 0.0], [0.0, 0.9, 0.1], [0.05, 0.05, 0.9]], n=500)
    joint = count.compute_confident_joint(given.numpy(), p.numpy(), calibrate=True)
    # cleanlab rounds the calibrated counts
    assert confident_count(p, given) == pytest.approx(joint.sum() - joint.trace(), abs=4)


def test_confident_learning_over_classes_that_nobody_was_given() -> None:
    labels = torch.tensor([0] * 10 + [2] * 10)
    p = torch.nn.functional.one_hot(labels, 4).double()
    p[3] = torch.tensor([0.0, 0.0, 1.0, 0.0])
    assert confident_count(p, labels) == pytest.approx(1.0)
    assert noise_model(p, labels).matrix.shape == (4, 4)
