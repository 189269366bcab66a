"""Sizes after resizing in each mode, and the canvas of a batch."""

import numpy as np
import pytest

from app.pipeline.data.resize import canvas_for, image_size_at, resize_image, resized_size


@pytest.mark.parametrize(
    ("resize", "size", "canvas"),
    [
        ("longest", (320, 214), (224, 320)),
        ("letterbox", (320, 214), (320, 320)),
        ("stretch", (320, 320), (320, 320)),
        ("as_is", (501, 335), (352, 512)),
    ],
)
def test_image_and_canvas_have_the_size_of_their_mode(resize, size, canvas):
    image = np.full((335, 501, 3), 77, np.uint8)
    resized = resize_image(image, 320, resize)
    assert resized.shape == (size[1], size[0], 3)
    assert (resized == 77).all()
    assert resized_size(501, 335, 320, resize) == size
    assert canvas_for([(501, 335)], 320, resize) == canvas


def test_one_canvas_holds_images_of_both_orientations():
    assert canvas_for([(640, 200), (100, 640)], 320) == (320, 320)
    assert canvas_for([(640, 200)], 320) == (128, 320)
    assert canvas_for([(640, 200), (100, 700)], 320, "as_is") == (704, 640)


def test_side_never_falls_below_a_pixel():
    assert resized_size(4000, 4, 64) == (64, 1)
    assert resize_image(np.zeros((4, 4000, 3), np.uint8), 64).shape == (1, 64, 3)


@pytest.mark.parametrize(
    ("num_epochs", "sizes", "expected"),
    [
        (4, (), [320, 320, 320, 320]),
        (4, (224, 320), [224, 224, 320, 320]),
        (5, (160, 224, 320), [160, 160, 224, 224, 320]),  # parts differ by one epoch
        (3, (160, 224, 320), [160, 224, 320]),
    ],
)
def test_sizes_come_in_order_each_for_an_equal_part_of_the_epochs(num_epochs, sizes, expected):
    assert [image_size_at(epoch, num_epochs, 320, sizes) for epoch in range(1, num_epochs + 1)] == expected
