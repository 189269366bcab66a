"""Pictures: every accepted kind becomes upright RGB, every unusable one is refused with a reason."""

import io
import struct
import tracemalloc
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image as PillowImage

from app.pipeline.data.image import (
    BadImage,
    Window,
    encode_jpeg,
    encode_png,
    probe_image,
    read_image,
    read_thumbnail,
    resize_longest,
    takes_window,
    value_range,
)
from tests.pipeline.data.export_files import picture


def quadrants(width: int = 8, height: int = 6) -> np.ndarray:
    """A picture whose four corners differ, so that every turn and flip can be told apart."""
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2, : width // 2] = (255, 0, 0)
    image[: height // 2, width // 2 :] = (0, 255, 0)
    image[height // 2 :, : width // 2] = (0, 0, 255)
    return image


def saved(array: np.ndarray, file_format: str, **options) -> bytes:
    stream = io.BytesIO()
    PillowImage.fromarray(array).save(stream, file_format, **options)
    return stream.getvalue()


def with_orientation(value: int, file_format: str = "PNG") -> bytes:
    exif = PillowImage.Exif()
    exif[0x0112] = value
    return saved(quadrants(), file_format, exif=exif)


def forged_png(width: int, height: int) -> bytes:
    """A PNG whose header claims a size that its data does not have."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("mode", "file_format", "extension", "needs_rendering"),
    [
        ("RGB", "JPEG", "jpg", False),
        ("L", "JPEG", "jpg", False),
        ("CMYK", "JPEG", "jpg", True),  # browsers invert or tint it
        ("RGB", "PNG", "png", False),
        ("1", "PNG", "png", False),
        ("P", "PNG", "png", True),
        ("LA", "PNG", "png", True),  # transparent: the browser would show the page through it
        ("RGBA", "PNG", "png", True),
        ("RGB", "WEBP", "webp", False),
        ("RGB", "BMP", "bmp", False),
        ("RGB", "TIFF", "tiff", True),  # browsers cannot show it
    ],
)
def test_every_accepted_kind_becomes_rgb(mode, file_format, extension, needs_rendering):
    data = picture(60, 40, file_format, mode)
    info = probe_image(data)
    assert (info.extension, info.width, info.height, info.needs_rendering) == (extension, 60, 40, needs_rendering)
    image = read_image(data)
    assert image.shape == (40, 60, 3)
    assert image.dtype == np.uint8


def test_sixteen_bits_lose_their_low_byte():
    values = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    data = saved(values, "PNG")
    assert probe_image(data).needs_rendering
    assert np.array_equal(read_image(data)[..., 0], (values >> 8).astype(np.uint8))


def test_floating_point_tiff_is_stretched():
    data = saved(np.linspace(-1, 1, 16 * 16, dtype=np.float32).reshape(16, 16), "TIFF")
    image = read_image(data)
    assert image.min() == 0
    assert image.max() == 255


def test_transparency_is_laid_on_white():
    array = np.zeros((8, 8, 4), np.uint8)
    array[4:, :, 3] = 255
    image = read_image(saved(array, "PNG"))
    assert (image[:4] == 255).all()
    assert (image[4:] == 0).all()


@pytest.mark.parametrize("file_format", ["GIF", "PNG", "WEBP"])
def test_first_frame_of_an_animation(file_format):
    frames = [PillowImage.new("RGB", (16, 12), color) for color in ("red", "blue")]
    stream = io.BytesIO()
    frames[0].save(stream, file_format, save_all=True, append_images=frames[1:], lossless=True)
    image = read_image(stream.getvalue())
    assert image.shape == (12, 16, 3)
    assert (image == (255, 0, 0)).all()


def test_gif_comes_with_a_png_to_store():
    data = picture(20, 10, "GIF", "P")
    info = probe_image(data)
    assert info.extension == "png"
    assert not info.needs_rendering
    assert probe_image(info.replacement).extension == "png"
    assert np.array_equal(read_image(info.replacement), read_image(data))


def test_mpo_inside_a_jpg_is_a_jpg():
    frames = [PillowImage.new("RGB", (16, 12), color) for color in ("red", "blue")]
    stream = io.BytesIO()
    frames[0].save(stream, "MPO", save_all=True, append_images=frames[1:])
    info = probe_image(stream.getvalue())
    assert (info.extension, info.needs_rendering) == ("jpg", False)


@pytest.mark.parametrize("value", range(1, 9))
def test_exif_orientation_gives_the_upright_picture(value):
    undo = {  # how a camera that recorded this orientation stored the upright picture (EXIF 2.32, 4.6.4)
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: np.rot90(a.transpose(1, 0, 2), 2),
        8: lambda a: np.rot90(a, -1),
    }
    upright = quadrants()
    exif = PillowImage.Exif()
    exif[0x0112] = value
    data = saved(np.ascontiguousarray(undo[value](upright)), "PNG", exif=exif)
    info = probe_image(data)
    assert (info.width, info.height) == (8, 6)
    assert info.needs_rendering == (value != 1)
    assert np.array_equal(read_image(data), upright)


@pytest.mark.parametrize("value", [0, 9, 999])
def test_unknown_orientation_counts_as_upright(value):
    data = with_orientation(value)
    assert (probe_image(data).width, probe_image(data).needs_rendering) == (8, False)
    assert np.array_equal(read_image(data), quadrants())


def test_broken_exif_does_not_cost_the_picture():
    data = saved(quadrants(64, 48), "JPEG", exif=b"Exif\x00\x00" + b"\xff" * 40)
    assert probe_image(data).width == 64
    assert read_image(data).shape == (48, 64, 3)


@pytest.mark.parametrize(("rotation", "turns"), [(0, 0), (90, -1), (180, 2), (270, 1)])
def test_rotation_is_clockwise_after_exif(rotation, turns):
    assert np.array_equal(read_image(saved(quadrants(), "PNG"), rotation), np.rot90(quadrants(), turns))


def test_odd_rotation_is_refused():
    with pytest.raises(ValueError, match="45"):
        read_image(picture(), 45)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (picture(64, 48, "JPEG")[:-200], "cannot be decoded"),
        (b"", "none of JPEG"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "none of JPEG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "none of JPEG"),
        (b"<!doctype html><script>alert(1)</script>", "none of JPEG"),
        (picture(1, 1), "at least 4"),
        (picture(1, 5000), "at least 4"),
        (forged_png(20_000, 20_000), "megapixels"),
        (forged_png(60_000, 60_000), "megapixels"),
        (forged_png(200, 200), "cannot be decoded"),
    ],
    ids=["truncated", "empty", "svg", "eps", "html", "1x1", "1x5000", "400 MP", "3600 MP", "too little data"],
)
def test_unusable_pictures_are_refused_with_the_reason(data, reason):
    with pytest.raises(BadImage, match=reason):
        probe_image(data)


def test_forged_size_costs_no_memory():
    data = forged_png(60_000, 60_000)
    tracemalloc.start()
    with pytest.raises(BadImage):
        probe_image(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000


def test_read_image_reads_a_file(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(picture(20, 10))
    assert read_image(path).shape == (10, 20, 3)
    assert probe_image(path).width == 20
    with pytest.raises(FileNotFoundError):
        read_image(tmp_path / "none.png")


@pytest.mark.parametrize(
    ("shape", "size", "expected", "scale"),
    [((100, 200), 50, (25, 50), 0.25), ((200, 100), 400, (400, 200), 2.0), ((1, 1000), 100, (1, 100), 0.1)],
    ids=["shrinks", "enlarges", "a side keeps one pixel"],
)
def test_longest_side_is_resized(shape, size, expected, scale):
    image, factor = resize_longest(np.zeros((*shape, 3), np.uint8), size)
    assert image.shape[:2] == expected
    assert factor == pytest.approx(scale)


def test_encoders_keep_the_order_of_colors():
    red = np.full((16, 16, 3), (255, 0, 0), np.uint8)
    assert np.array_equal(read_image(encode_png(red)), red)
    assert np.abs(read_image(encode_jpeg(red, 95)).astype(int) - red).max() < 10


@pytest.mark.parametrize(
    ("values", "center", "width", "expected"),
    [
        (np.uint16([0, 900, 1000, 1100, 65535]), 1000, 200, [0, 0, 128, 255, 255]),
        (np.uint16([0, 16384, 65535]), 32767.5, 65535, [0, 64, 255]),  # the whole range
        (np.uint8([0, 100, 110, 120, 255]), 110, 20, [0, 0, 128, 255, 255]),
        (np.int32([0, 70000, 140000]), 70000, 140000, [0, 128, 255]),
        (np.float32([-5.0, 0.0, 5.0]), 0, 10, [0, 128, 255]),
    ],
    ids=["16 bits", "whole range", "8 bits", "32 bits", "floats"],
)
def test_window_makes_its_ends_black_and_white(values, center, width, expected):
    data = saved(np.repeat(values[None], 8, axis=0), "TIFF" if values.dtype.itemsize == 4 else "PNG")
    assert takes_window(data)
    image = read_image(data, window=Window(center, width))
    assert image.shape == (8, len(values), 3)
    assert (image[..., 0] == image[..., 1]).all()
    assert image[0, :, 0].tolist() == expected


def test_window_keeps_transparency_and_leaves_color_alone():
    layers = np.dstack([np.full((8, 8), 100, np.uint8), np.repeat([[0, 255] * 4], 8, axis=0).astype(np.uint8)])
    image = read_image(saved(layers, "PNG"), window=Window(150, 20))
    assert image[0, :2, 0].tolist() == [255, 0]  # white paper shows through; the rest lies below the window
    color = saved(quadrants(), "PNG")
    assert not takes_window(color)
    assert np.array_equal(read_image(color, window=Window(100, 10)), quadrants())


def test_no_window_is_width_zero():
    assert Window.of(500, 0) is None
    assert Window.of(500, 10) == Window(500.0, 10.0)


def test_thumbnail_is_seen_through_the_window_and_turned(tmp_path):
    path = tmp_path / "deep.png"
    path.write_bytes(saved(np.full((40, 80), 1000, np.uint16), "PNG"))
    image = read_thumbnail(path, 20, 90, Window(1000, 2000))
    assert image.shape == (20, 10, 3)
    assert np.unique(image).tolist() == [128]


def deep_color(extension):
    """A 12 x 16 picture of 12 bits in 16: red rises from 0 to 3000 in steps of 200, green is 4000, blue 1000."""
    values = np.zeros((12, 16, 3), np.uint16)
    values[..., 0] = np.arange(16) * 200
    values[..., 1], values[..., 2] = 4000, 1000
    return cv2.imencode(extension, values[..., ::-1])[1].tobytes()


@pytest.mark.parametrize("extension", [".png", ".tiff"])
def test_window_acts_on_each_channel_of_deep_color(extension):
    """Their high bytes alone would give 16 levels, nearly black."""
    data = deep_color(extension)
    info = probe_image(data)
    assert (info.is_deep, info.needs_rendering, takes_window(data)) == (True, True, True)
    assert value_range(data) == pytest.approx((0, 4000), abs=250)
    image = read_image(data, window=Window(2000, 4000))
    assert image.shape == (12, 16, 3)
    assert image[0, :, 0].tolist() == [round(200 * n * 255 / 4000 + 1e-6) for n in range(16)]
    assert (image[..., 1] == 255).all() and (image[..., 2] == 64).all()


def test_deep_color_without_a_window_keeps_its_high_bytes():
    image = read_image(deep_color(".png"))
    assert image[0, :, 0].tolist() == [200 * n >> 8 for n in range(16)]
    assert (image[0, 0, 1], image[0, 0, 2]) == (4000 >> 8, 1000 >> 8)


def test_deep_color_is_turned_upright_and_keeps_its_transparency():
    values = np.zeros((8, 12, 4), np.uint16)
    values[:, :6] = (0, 0, 1000, 65535)  # blue, green, red, alpha: the left half is red, the right one transparent
    data = cv2.imencode(".png", values)[1].tobytes()
    image = read_image(data, 90, Window(500, 1000))
    assert image.shape == (12, 8, 3)
    assert image[0, 0].tolist() == [255, 0, 0]
    assert image[-1, 0].tolist() == [255, 255, 255]


def test_eight_bits_are_not_deep():
    assert not probe_image(picture(16, 12, "PNG", "RGB")).is_deep
    assert not probe_image(picture(16, 12, "PNG", "L")).is_deep
    assert probe_image(saved(np.zeros((8, 8), np.uint16), "PNG")).is_deep
    assert value_range(picture(16, 12, "PNG", "RGB")) is None
