from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from expunge.data.images import Augmentation, ImageData, ImageSource, Stamp, channel_statistics
from expunge.errors import DataError, InvalidInput


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pixels(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, generator=generator(9), dtype=torch.uint8)


def small_data(**changes: Any) -> ImageData:
    fields: dict[str, Any] = {
        "name": "small",
        "train_images": pixels(12, 2, 5, 6),
        "train_labels": torch.arange(12) % 3,
        "test_images": pixels(4, 2, 5, 6),
        "test_labels": torch.tensor([0, 1, 2, 0]),
        "classes": ("a", "b", "c"),
        "mean": (0.4, 0.5),
        "std": (0.2, 0.25),
    }
    return ImageData(**(fields | changes))


def augmented_one_by_one(images: Tensor, pad: int, shifts: Tensor, flips: Tensor) -> Tensor:
    """Pixel (r, c) of the result is pixel (r + dr - pad, c + dc - pad) of the image, or zero outside."""
    count, channels, height, width = images.shape
    result = torch.zeros_like(images)
    for n in range(count):
        for channel in range(channels):
            for row in range(height):
                for column in range(width):
                    r = row + int(shifts[0, n]) - pad
                    c = (width - 1 - column if flips[n] else column) + int(shifts[1, n]) - pad
                    if 0 <= r < height and 0 <= c < width:
                        result[n, channel, row, column] = images[n, channel, r, c]
    return result


@pytest.mark.parametrize(("pad", "flip"), [(2, True), (2, False), (0, True)])
def test_augmentation_is_what_a_loop_over_pixels_gives(pad: int, flip: bool) -> None:
    images = pixels(9, 2, 5, 6)
    draws = generator(3)
    shifts = torch.randint(0, 2 * pad + 1, (2, 9), generator=draws) if pad else torch.zeros(2, 9)
    flips = torch.rand(9, generator=draws) < 0.5 if flip else torch.zeros(9, dtype=torch.bool)
    result = Augmentation(pad, flip)(images, generator(3))
    assert result.dtype == torch.uint8
    assert torch.equal(result, augmented_one_by_one(images, pad, shifts, flips))


def test_every_example_gets_draws_of_its_own() -> None:
    images = pixels(1, 1, 9, 9).expand(2000, 1, 9, 9)
    results = Augmentation(pad=1, flip=True)(images, generator())
    counts = torch.unique(results.flatten(1), dim=0, return_counts=True)[1]
    # 3 x 3 shifts x 2 flips, each expected 111 times with standard deviation 10
    assert len(counts) == 18
    assert counts.min() > 60
    assert counts.max() < 170


def test_augmentation_of_nothing_changes_nothing() -> None:
    images = pixels(4, 3, 5, 5)
    assert torch.equal(Augmentation()(images, generator()), images)


def test_augmentation_repeats_with_the_seed_and_leaves_its_input() -> None:
    images = pixels(8, 1, 6, 6)
    before = images.clone()
    change = Augmentation(pad=2, flip=True)
    assert torch.equal(change(images, generator(1)), change(images, generator(1)))
    assert not torch.equal(change(images, generator(1)), change(images, generator(2)))
    assert torch.equal(images, before)


def test_the_stamp_sets_one_corner_of_the_stamped_images() -> None:
    inputs = torch.randn(4, 2, 5, 6, generator=generator())
    stamped = torch.tensor([True, False, True, False])
    result = Stamp(size=2, value=1.5)(inputs, stamped)
    for n in range(4):
        for row in range(5):
            for column in range(6):
                inside = bool(stamped[n]) and row >= 3 and column >= 4
                expected = torch.full((2,), 1.5) if inside else inputs[n, :, row, column]
                assert torch.equal(result[n, :, row, column], expected)
    assert not torch.equal(result, inputs)
    assert float(inputs.max()) != 1.5


def test_fetch_normalises_by_the_formula() -> None:
    images, rows = pixels(6, 2, 4, 4), torch.tensor([5, 0, 3])
    inputs = ImageSource(images, (0.4, 0.5), (0.2, 0.25)).fetch(rows, None)
    assert inputs.dtype == torch.float32
    for n, row in enumerate(rows.tolist()):
        for channel, (mean, std) in enumerate(zip((0.4, 0.5), (0.2, 0.25), strict=True)):
            expected = (images[row, channel].double() / 255 - mean) / std
            torch.testing.assert_close(inputs[n, channel].double(), expected, rtol=1e-5, atol=1e-5)


def test_fetch_augments_only_with_a_generator() -> None:
    images, rows = pixels(6, 1, 8, 8), torch.tensor([4, 1, 2])
    change = Augmentation(pad=2, flip=True)
    source = ImageSource(images, (0.0,), (1.0,), augmentation=change)
    torch.testing.assert_close(source.fetch(rows, None) * 255, images[rows].float())
    torch.testing.assert_close(
        source.fetch(rows, generator(5)) * 255, change(images[rows], generator(5)).float()
    )


def test_the_stamp_stays_in_its_corner_under_augmentation() -> None:
    stamped = torch.tensor([False, True, False, True, True, False])
    source = ImageSource(
        pixels(6, 1, 8, 8), (0.5,), (0.5,), Augmentation(pad=2, flip=True), Stamp(size=3, value=7.0), stamped
    )
    rows = torch.tensor([3, 0, 1, 5])
    for draws in (None, generator(1), generator(2)):
        inputs = source.fetch(rows, draws)
        assert [bool((image == 7.0).any()) for image in inputs] == [True, False, True, False]
        assert bool((inputs[[0, 2], :, -3:, -3:] == 7.0).all())
        assert int((inputs == 7.0).sum()) == 2 * 9


def test_channel_statistics_are_those_of_the_pixels() -> None:
    images = torch.zeros(2, 2, 1, 2, dtype=torch.uint8)
    images[:, 0] = torch.tensor([[[0, 255]], [[255, 255]]])
    images[:, 1] = 51
    mean, std = channel_statistics(images)
    assert mean == pytest.approx([0.75, 0.2])
    assert std == pytest.approx([(3 / 16) ** 0.5, 1.0])


def test_the_shape_of_an_image() -> None:
    assert small_data().shape == (2, 5, 6)


def test_content_depends_on_every_pixel_and_label() -> None:
    data = small_data()
    assert small_data().content == data.content
    images = data.test_images.clone()
    images[3, 1, 4, 5] += 1
    assert replace(data, test_images=images).content != data.content
    assert replace(data, train_labels=data.train_labels.flip(0)).content != data.content


def test_moving_keeps_the_content() -> None:
    data = small_data()
    assert data.to("cpu").content == data.content


def test_the_largest_input_is_that_of_the_normalised_images() -> None:
    data = small_data()
    source = ImageSource(data.train_images, data.mean, data.std)
    expected = float(source.fetch(torch.arange(12), None).max())
    assert data.largest_input() == pytest.approx(expected, rel=1e-5)


def test_the_test_part_in_order() -> None:
    data = small_data()
    test = data.test()
    assert test.labels.tolist() == [0, 1, 2, 0]
    assert test.n_classes == 3
    (batch,) = test.batches(10)
    expected = ImageSource(data.test_images, data.mean, data.std).fetch(torch.arange(4), None)
    assert torch.equal(batch.x, expected)


def hundred() -> ImageData:
    images = torch.arange(100, dtype=torch.uint8).view(100, 1, 1, 1).expand(100, 1, 2, 2)
    labels = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)
    return small_data(
        train_images=images,
        train_labels=labels,
        test_images=images[:3],
        test_labels=labels[:3],
        mean=(0.0,),
        std=(1.0,),
    )


@pytest.mark.parametrize(
    ("size", "expected"),
    [(30, [10, 10, 10]), (60, [25, 25, 10]), (100, [60, 30, 10])],
)
def test_a_subset_is_balanced_as_far_as_the_classes_reach(size: int, expected: list[int]) -> None:
    data = hundred()
    part = data.subset(size)
    assert part.train_labels.bincount(minlength=3).tolist() == expected
    rows = part.train_images[:, 0, 0, 0].long()
    assert rows.tolist() == sorted(set(rows.tolist()))
    assert torch.equal(part.train_labels, data.train_labels[rows])
    assert torch.equal(part.test_images, data.test_images)
    assert part.name == f"small[{size}]"


def test_a_subset_of_any_size_differs_by_at_most_one_image_a_class() -> None:
    counts = hundred().subset(17).train_labels.bincount(minlength=3)
    assert int(counts.sum()) == 17
    assert int(counts.max() - counts.min()) == 1


def test_a_subset_is_drawn_from_the_seed() -> None:
    data = hundred()
    assert torch.equal(data.subset(30, seed=1).train_images, data.subset(30, seed=1).train_images)
    assert not torch.equal(data.subset(30, seed=1).train_images, data.subset(30, seed=2).train_images)


@pytest.mark.parametrize(
    ("ratio", "expected"), [(1.0, [60, 30, 10]), (0.25, [60, 15, 2]), (0.001, [60, 1, 1])]
)
def test_later_classes_keep_fewer_images(ratio: float, expected: list[int]) -> None:
    data = hundred()
    part = data.imbalanced(ratio)
    assert part.train_labels.bincount(minlength=3).tolist() == expected
    rows = part.train_images[:, 0, 0, 0].long()
    assert rows.tolist() == sorted(set(rows.tolist()))
    assert torch.equal(part.train_labels, data.train_labels[rows])
    assert torch.equal(part.test_images, data.test_images)
    assert torch.equal(part.train_images, data.imbalanced(ratio).train_images)


@pytest.mark.parametrize("ratio", [0.0, 1.5, float("nan")])
def test_an_imbalance_out_of_range_is_refused(ratio: float) -> None:
    with pytest.raises(InvalidInput, match=r"the imbalance is the share .* must lie in \(0, 1\], got"):
        small_data().imbalanced(ratio)


@pytest.mark.parametrize("size", [0, -1, 13])
def test_a_subset_that_is_not_there_is_refused(size: int) -> None:
    with pytest.raises(InvalidInput, match=f"a subset of {size} training images was asked for; small has 12"):
        small_data().subset(size)


UNFIT: dict[str, dict[str, Any]] = {
    r"train images must be uint8 \(N, C, H, W\), got torch.float32": {
        "train_images": torch.zeros(12, 2, 5, 6)
    },
    r"test images must be uint8 \(N, C, H, W\), got torch.uint8 \(4, 5, 6\)": {
        "test_images": pixels(4, 5, 6)
    },
    "12 train images but 11 labels": {"train_labels": torch.zeros(11, dtype=torch.int64)},
    "0 test images but 0 labels; both must be of one length and not empty": {
        "test_images": pixels(0, 2, 5, 6),
        "test_labels": torch.zeros(0, dtype=torch.int64),
    },
    r"training images are \(2, 5, 6\) but test images are \(1, 5, 6\)": {"test_images": pixels(4, 1, 5, 6)},
    r"labels must lie in 0\.\.1, but 4 do not \(the first is 2 at position 2\)": {"classes": ("a", "b")},
}


@pytest.mark.parametrize("message", UNFIT)
def test_parts_that_do_not_fit_are_refused(message: str) -> None:
    with pytest.raises(DataError, match=message):
        small_data(**UNFIT[message])
