from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from expunge.data.examples import Examples
from expunge.data.images import ImageSource, Stamp
from expunge.data.mapped import examples_from_dataset
from expunge.data.synthetic import learnable_images
from expunge.errors import InvalidInput
from expunge.methods.base import Request
from expunge.methods.natmu import Matching, NatMU, blend, masks, match, rank_rivals
from expunge.seeding import generator
from expunge.tasks.base import Split
from expunge.training.loop import predict
from expunge.training.numerics import Numerics

CPU = Numerics(channels_last=False)


def images(n_classes: int = 6, count: int = 120) -> Examples:
    data = learnable_images(n_train=count, n_classes=n_classes, n_test=n_classes)
    source = ImageSource(data.train_images, data.mean, data.std)
    return Examples.all_of(source, data.train_labels, n_classes)


def network(train: Examples) -> nn.Module:
    torch_seed = torch.Generator().manual_seed(1)
    size = train.source.fetch(train.index[:1], None).numel()
    model = nn.Sequential(nn.Flatten(), nn.Linear(size, train.n_classes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=torch_seed))
    return model


def made(method: NatMU, model: nn.Module, request: Request) -> Examples:
    with request.meter:
        return method.hybrids(model, request)


def requested(train: Examples, positions: torch.Tensor, method: NatMU) -> Request:
    return Request(Split(train, positions), seed=0, numerics=CPU).grant(method.name, method.needs)


@pytest.mark.parametrize(
    ("side", "delta", "mean"),
    [
        (32, 0.0, 0.468750),
        (32, -0.03, 0.440625),
        (32, -0.053, 0.419062),
        (32, -0.19, 0.302812),
        (64, 0.0, 0.484375),
        (64, 0.045, 0.528945),
    ],
)
def test_masks_have_the_published_means(side: int, delta: float, mean: float) -> None:
    found = masks(side, side, delta)
    assert found.mean((1, 2)).tolist() == pytest.approx([mean] * 4, abs=1e-6)
    assert float(found.max()) == pytest.approx(min(1.0, 1 - 2 / side + delta))


def test_masks_are_bands_in_their_order() -> None:
    rows, columns, row_borders, column_borders = masks(4, 4)
    assert rows[:, 0].tolist() == [0, 0.5, 0.5, 0]
    assert torch.equal(columns, rows.T)
    assert row_borders[:, 0].tolist() == [0.5, 0, 0, 0.5]
    assert torch.equal(column_borders, row_borders.T)


def test_masks_of_odd_sides_and_vectors() -> None:
    assert masks(3, 5)[0, :, 0].tolist() == [0, 0.5, 0]
    assert masks(3, 5)[1, 0].tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1 / 3, 0])
    vector = masks(1, 5)
    assert torch.equal(vector[0], vector[1])
    assert torch.equal(vector[2], vector[3])
    assert torch.equal(vector[:, 0], masks(5, 1)[:, :, 0])


def test_rivals_are_the_other_classes_most_probable_first() -> None:
    logits = torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, 4.0]])
    assert rank_rivals(logits, torch.tensor([0, 2])).tolist() == [[2, 1], [1, 0]]


def test_hybrids_follow_the_rule() -> None:
    method, train = NatMU(), images()
    request = requested(train, torch.arange(10), method)
    model = network(train)
    hybrids = made(method, model, request)
    forget, retain = request.forget, request.retain
    assert len(hybrids) == 4 * len(forget)
    ranked = rank_rivals(predict(model, forget, CPU), forget.labels)
    assert torch.equal(hybrids.labels.view(10, 4), ranked[:, :4])
    chosen = match(ranked, retain.labels, 4, request.generator("partners"))
    assert len(set(chosen.partner.tolist())) == 40
    assert torch.equal(retain.labels[chosen.partner], hybrids.labels)
    assert chosen.mask.tolist() == [0, 1, 2, 3] * 10
    source = train.source
    assert isinstance(source, ImageSource)
    assert isinstance(hybrids.source, ImageSource)
    # the first hybrid, pixel by pixel in grey levels, truncated
    ours, theirs = source.images[0].float(), source.images[retain.index[chosen.partner[0]]].float()
    weight = masks(8, 8, -0.19)[0]
    assert torch.equal(hybrids.source.images[0], (weight * ours + (1 - weight) * theirs).to(torch.uint8))


def test_delta_one_gives_the_forgotten_image_with_a_rival_label() -> None:
    method, train = NatMU(delta=1.0), images()
    request = requested(train, torch.arange(5), method)
    hybrids = made(method, network(train), request)
    inputs, labels = next((b.x, b.y) for b in hybrids.batches(100))
    own = next(iter(request.forget.batches(100)))
    assert torch.equal(inputs, own.x.repeat_interleave(4, 0))
    assert not bool((labels == own.y.repeat_interleave(4)).any())


def test_delta_minus_one_gives_the_remaining_images() -> None:
    method, train = NatMU(delta=-1.0), images()
    request = requested(train, torch.arange(5), method)
    hybrids, retain = made(method, network(train), request), request.retain
    every = {
        tuple(x.flatten().tolist()): int(y)
        for b in retain.batches(200)
        for x, y in zip(b.x, b.y, strict=True)
    }
    for batch in hybrids.batches(100):
        assert [every[tuple(x.flatten().tolist())] for x in batch.x] == batch.y.tolist()


def test_a_trigger_is_blended_as_the_model_sees_it() -> None:
    train = images()
    assert isinstance(train.source, ImageSource)
    stamped = torch.zeros(120, dtype=torch.bool)
    stamped[0] = True
    train = replace(train, source=replace(train.source, stamp=Stamp(3, 0.5), stamped=stamped))
    split = Split(train, torch.tensor([0]))
    one = Matching(torch.tensor([0]), torch.tensor([0]), torch.tensor([7]), 0, 0)
    batch = next(iter(blend(split.forget, split.retain, one, 1.0).batches(1))).x
    step = 1 / (255 * train.source.std[0])  # type: ignore[attr-defined]
    assert batch[0, 0, -3:, -3:].tolist() == [[pytest.approx(0.5, abs=0.6 * step)] * 3] * 3


def test_vectors_are_blended_where_they_are() -> None:
    x = torch.randn(60, 7, generator=torch.Generator().manual_seed(0))
    split = Split(examples_from_dataset(TensorDataset(x, torch.arange(60) % 6), 6), torch.tensor([3]))
    one = Matching(torch.tensor([0]), torch.tensor([2]), torch.tensor([0]), 0, 0)
    batch = next(iter(blend(split.forget, split.retain, one, -0.1).batches(1)))
    weight = masks(1, 7, -0.1)[2, 0]
    assert torch.allclose(batch.x[0], weight * x[3] + (1 - weight) * x[0])
    assert batch.y.tolist() == [0]


def test_matching_goes_to_the_next_class_with_stock() -> None:
    labels = torch.tensor([1, 2, 2, 3, 3, 3])
    ranked = torch.tensor([[1, 2, 3]] * 3)
    found = match(ranked, labels, 2, generator(0))
    assert labels[found.partner].view(3, 2).tolist() == [[1, 2], [2, 3], [3, 3]]
    assert (found.repeated, found.left_out) == (1, 0)
    assert max(Counter(found.partner.tolist()).values()) == 1


def test_matching_without_stock_ends() -> None:
    found = match(torch.tensor([[1, 2]] * 3), torch.tensor([0, 1, 2, 2]), 2, generator(0))
    assert found.image.tolist() == [0, 0, 1]
    assert (found.repeated, found.left_out) == (0, 3)


def test_nothing_to_match() -> None:
    assert len(match(torch.empty(0, 2, dtype=torch.int64), torch.tensor([0, 1]), 2, generator(0)).image) == 0


def head_weights(method: NatMU, train: Examples, positions: torch.Tensor) -> tuple[nn.Linear, nn.Linear]:
    model = network(train)
    request = requested(train, positions, method)
    changed = network(train)
    method.prepare_head(changed, request)
    return model[1], changed[1]  # type: ignore[index]


def test_head_is_drawn_anew_for_whole_classes_only() -> None:
    train = images()
    some, whole = torch.arange(4), (train.labels == 2).nonzero().flatten()
    before, after = head_weights(NatMU(), train, some)
    assert torch.equal(before.weight, after.weight)
    before, after = head_weights(NatMU(), train, whole)
    assert not torch.equal(before.weight, after.weight)
    assert torch.equal(before.bias, after.bias)
    # Xavier-normal with gain sqrt 2: variance 4 / (inputs + outputs)
    assert float(after.weight.detach().std()) == pytest.approx((4 / (64 + 6)) ** 0.5, rel=0.15)
    before, after = head_weights(NatMU(reinit_head=False), train, whole)
    assert torch.equal(before.weight, after.weight)


@pytest.mark.parametrize(
    ("n_classes", "message"),
    [(2, r"two-class problem for a top-4 rule.*set rivals=1, or use another method \(.*finetune"),
     (4, r"4-class problem for a top-4 rule.*set rivals=3")],
)  # fmt: skip
def test_too_few_classes_are_refused(n_classes: int, message: str) -> None:
    train = images(n_classes)
    with pytest.raises(InvalidInput, match=message):
        NatMU()(network(train), Request(Split(train, torch.arange(2)), seed=0, numerics=CPU))


def refusal(positions: torch.Tensor, **settings: int) -> str:
    train = images()
    with pytest.raises(InvalidInput) as caught:
        NatMU(**settings)(network(train), Request(Split(train, positions), seed=0, numerics=CPU))  # type: ignore[arg-type]
    return str(caught.value)


def test_too_few_remaining_images_are_refused() -> None:
    message = refusal(torch.arange(30))
    assert "need 4 each, 120 in all, each used once, but there are 90; name fewer, set rivals=3" in message
    labels = images().labels
    most = torch.cat([(labels == 0).nonzero().flatten(), (labels != 0).nonzero().flatten()[:7]])
    assert "images of class" in refusal(torch.arange(105))
    assert "need 4 each, 108 in all" in refusal(most)


def test_forgetting_everything_is_refused() -> None:
    message = refusal(torch.arange(120))
    assert "forget set is all 120 training examples" in message
    assert "gradient_ascent" in message
    assert "finetune" not in message


def test_too_few_remaining_classes_are_refused() -> None:
    labels = images().labels
    message = refusal((labels < 3).nonzero().flatten())
    assert "besides class 0 the remaining images have only 3; set rivals=3" in message


@pytest.mark.parametrize("settings", [{"rivals": 5}, {"rivals": 0}, {"delta": 1.5}, {"epochs": 0}])
def test_settings_out_of_range_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(InvalidInput, match=next(iter(settings))):
        NatMU(**settings)  # type: ignore[arg-type]
