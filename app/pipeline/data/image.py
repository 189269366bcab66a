"""Pixels: the one way to check, read, resize and encode a picture. Imports no torch.

Every reader (screen, training, evaluation) sees the same upright RGB pixels: EXIF orientation applied, the first frame,
transparency laid on white, 16 bits brought to 8. A Window chooses which values of gray and 16-bit pictures those 8 bits
show.
"""

import io
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image as PillowImage

MAX_PIXELS = 100_000_000
MIN_SIDE_PX = 4
EXTENSIONS = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp", "BMP": "bmp", "TIFF": "tiff"}

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
_SHOWN_BY_BROWSERS = {"JPEG", "PNG", "WEBP", "BMP"}
_PLAIN_MODES = {"RGB", "L", "1"}
_GRAY_MODES = ("L", "LA", "I", "F")  # and the 16-bit ones, whose names begin with I
_ORIENTATION_TAG = 0x0112
_TRANSPOSE = {
    2: PillowImage.Transpose.FLIP_LEFT_RIGHT,
    3: PillowImage.Transpose.ROTATE_180,
    4: PillowImage.Transpose.FLIP_TOP_BOTTOM,
    5: PillowImage.Transpose.TRANSPOSE,
    6: PillowImage.Transpose.ROTATE_270,
    7: PillowImage.Transpose.TRANSVERSE,
    8: PillowImage.Transpose.ROTATE_90,
}


class BadImage(ValueError):
    """Bytes that are no usable picture; the message says why."""


@dataclass(frozen=True, slots=True)
class Window:
    """The values to show: ``center - width / 2`` becomes black, ``center + width / 2`` white, linear between.

    In the values of the file: 0..255 for 8 bits, 0..65535 for 16. Acts on gray pictures, and on each channel of color
    with 16 bits; ``width`` is above 0.
    """

    center: float
    width: float

    @classmethod
    def of(cls, center: float, width: float) -> "Window | None":
        """The window of these options; None for width 0, which shows the whole range."""
        return cls(float(center), float(width)) if width else None

    def apply(self, values: np.ndarray) -> np.ndarray:
        """``values`` of any numeric type as uint8 of the same shape."""
        shares = (np.nan_to_num(values.astype(np.float32)) - (self.center - self.width / 2)) / self.width
        return (shares.clip(0, 1) * 255 + 0.5).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What a picture is: ``width`` and ``height`` in pixels of the upright picture.

    ``extension`` names the format found in the bytes. ``needs_rendering``: a browser shows other pixels than
    :func:`read_image` gives (TIFF, CMYK, 16 bits, transparency, animation, EXIF orientation). ``is_deep``: its values
    have more than 8 bits. ``replacement`` holds PNG bytes to store in place of a format that is not kept (GIF), else
    None.
    """

    extension: str
    width: int
    height: int
    needs_rendering: bool
    is_deep: bool = False
    replacement: bytes | None = None


def probe_image(source: bytes | Path) -> ImageInfo:
    """Decode the whole picture and describe it; raises BadImage.

    The size is checked from the header before a pixel is decoded, so a forged header costs no memory.
    """
    with _opened(source) as picture:
        is_deep = _has_deep_color(picture) or picture.mode[0] in "IF"
        orientation = _orientation(picture)
        width, height = picture.size if orientation < 5 else picture.size[::-1]
        if min(width, height) < MIN_SIDE_PX:
            raise BadImage(f"it is {width} x {height} pixels; each side must have at least {MIN_SIDE_PX}")
        is_animated = getattr(picture, "is_animated", False) and picture.format != "MPO"
        is_shown = picture.format in _SHOWN_BY_BROWSERS | {"MPO"} and picture.mode in _PLAIN_MODES
        needs_rendering = not is_shown or is_deep or orientation != 1 or is_animated or "transparency" in picture.info
        try:
            if picture.format == "GIF":
                replacement = encode_png(_to_upright_rgb(picture))
                return ImageInfo("png", width, height, False, replacement=replacement)
            picture.load()
        except BadImage:
            raise
        except Exception as error:  # Pillow's decoders raise many kinds: OSError, SyntaxError, struct.error, ValueError
            raise BadImage(f"it cannot be decoded ({_reason(error)})") from error
        return ImageInfo(EXTENSIONS[picture.format], width, height, needs_rendering, is_deep)


def takes_window(source: bytes | Path) -> bool:
    """Whether a window acts on the file: gray, or color with 16 bits; only the header is read. Raises BadImage."""
    with _opened(source) as picture:
        return _has_gray_values(picture) or _has_deep_color(picture)


def value_range(source: bytes | Path) -> tuple[float, float] | None:
    """The 1st and 99th percentile of the values that a window acts on, as the file has them; None where none does.

    Raises BadImage.
    """
    with _opened(source) as picture:
        try:
            if _has_deep_color(picture):
                values = _deep_color(picture)[..., :3]
            elif _has_gray_values(picture):
                values = np.nan_to_num(np.asarray(picture.convert("L") if picture.mode == "LA" else picture))
            else:
                return None
        except Exception as error:  # see probe_image
            raise BadImage(f"it cannot be decoded ({_reason(error)})") from error
    low, high = np.percentile(values, (1, 99))
    return float(low), float(high)


def read_image(source: bytes | Path | str, rotation: int = 0, window: Window | None = None) -> np.ndarray:
    """The upright picture as uint8 [H, W, 3] RGB; ``rotation`` is degrees clockwise applied after EXIF.

    A gray picture comes with three equal channels. Gray and 16-bit values are seen through ``window``; without one,
    16 bits lose their low byte.
    Raises BadImage when the bytes cannot be decoded, ValueError for a rotation that is no quarter turn.
    """
    if rotation not in (0, 90, 180, 270):
        raise ValueError(f"rotation must be 0, 90, 180 or 270, got {rotation}")
    with _opened(Path(source) if isinstance(source, str) else source) as picture:
        try:
            array = _to_upright_rgb(picture, window)
        except Exception as error:  # see probe_image
            raise BadImage(f"it cannot be decoded ({_reason(error)})") from error
    return np.ascontiguousarray(np.rot90(array, -rotation // 90)) if rotation else array


def read_thumbnail(source: Path, size: int, rotation: int = 0, window: Window | None = None) -> np.ndarray:
    """As :func:`read_image`, shrunk to ``size`` pixels on the longer side at most; JPEGs decode only as fine as needed.

    Raises BadImage.
    """
    with _opened(source) as picture:
        picture.draft("RGB", (size, size))
        try:
            array = _to_upright_rgb(picture, window)
        except Exception as error:  # see probe_image
            raise BadImage(f"it cannot be decoded ({_reason(error)})") from error
    if max(array.shape[:2]) > size:
        array = resize_longest(array, size)[0]
    return np.ascontiguousarray(np.rot90(array, -rotation // 90)) if rotation else array


def resize_longest(image: np.ndarray, size: int) -> tuple[np.ndarray, float]:
    """Resize uint8 [H, W, C] so that its longer side is ``size``; returns (image, new side / old side).

    Area averaging when shrinking, linear when enlarging; a side never falls below one pixel.
    """
    height, width = image.shape[:2]
    scale = size / max(height, width)
    if scale == 1:
        return image, 1.0
    target = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(image, target, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR), scale


def encode_jpeg(image: np.ndarray, quality: int = 90) -> bytes:
    """JPEG bytes of uint8 [H, W, 3] RGB; quality 1..100."""
    return _encode(image, ".jpg", [cv2.IMWRITE_JPEG_QUALITY, quality])


def encode_png(image: np.ndarray) -> bytes:
    """PNG bytes (lossless) of uint8 [H, W, 3] RGB."""
    return _encode(image, ".png", [])


def _encode(image: np.ndarray, extension: str, options: list[int]) -> bytes:
    is_encoded, data = cv2.imencode(extension, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    if not is_encoded:
        raise ValueError(f"cannot encode an image of shape {image.shape} as {extension}")
    return data.tobytes()


def _opened(source: bytes | Path) -> PillowImage.Image:
    """The picture with only its header read, of an accepted format and size; raises BadImage."""
    try:
        picture = PillowImage.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=_FORMATS)
    except PillowImage.DecompressionBombError as error:
        raise BadImage(f"it has more than {MAX_PIXELS // 10**6} megapixels") from error
    except PillowImage.UnidentifiedImageError as error:
        raise BadImage("it is none of JPEG, PNG, WebP, BMP, TIFF or GIF") from error
    except FileNotFoundError:
        raise
    except Exception as error:  # see probe_image
        raise BadImage(f"its header cannot be read ({_reason(error)})") from error
    width, height = picture.size
    if width * height > MAX_PIXELS:
        picture.close()
        raise BadImage(f"it is {width} x {height} pixels; at most {MAX_PIXELS // 10**6} megapixels are accepted")
    return picture


def _orientation(picture: PillowImage.Image) -> int:
    """EXIF orientation 1..8; 1 where the tag is missing, out of range or unreadable."""
    try:
        value = picture.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # a broken EXIF block must not cost the picture; Pillow raises many kinds here
        return 1
    return value if value in _TRANSPOSE else 1


def _has_gray_values(picture: PillowImage.Image) -> bool:
    return picture.mode in _GRAY_MODES or picture.mode.startswith("I;")


def _has_deep_color(picture: PillowImage.Image) -> bool:
    """Whether there are 16 bits for each color channel, of which Pillow decodes the high bytes alone.

    To be asked first of all: once loaded, and Pillow loads a PNG to look for its EXIF, a picture cannot tell any more.
    """
    if picture.mode not in ("RGB", "RGBA") or not picture.tile:
        return False
    arguments = picture.tile[0].args
    raw_mode = arguments if isinstance(arguments, str) else arguments[0] if arguments else ""
    return ";16" in str(raw_mode)


def _deep_color(picture: PillowImage.Image) -> np.ndarray:
    """uint16 [H, W, 3 or 4] RGB(A) of a picture that has them, not yet turned upright."""
    position = picture.fp.tell()
    picture.fp.seek(0)
    values = cv2.imdecode(np.frombuffer(picture.fp.read(), np.uint8), cv2.IMREAD_UNCHANGED)
    picture.fp.seek(position)
    if values is None or values.dtype != np.uint16 or values.ndim != 3:
        return np.asarray(picture).astype(np.uint16) * 257  # a kind of TIFF that OpenCV does not know
    return cv2.cvtColor(values, cv2.COLOR_BGRA2RGBA if values.shape[2] == 4 else cv2.COLOR_BGR2RGB)


def _to_upright_rgb(picture: PillowImage.Image, window: Window | None = None) -> np.ndarray:
    values = _deep_color(picture) if window and _has_deep_color(picture) else None
    orientation = _orientation(picture)
    if values is not None and window:
        picture = _windowed_color(values, window)
    elif window and _has_gray_values(picture):
        picture = _windowed(picture, window)
    rgb = _to_rgb(picture)
    if orientation in _TRANSPOSE:
        rgb = rgb.transpose(_TRANSPOSE[orientation])
    return np.array(rgb, np.uint8)


def _windowed(picture: PillowImage.Image, window: Window) -> PillowImage.Image:
    """A gray picture seen through the window; its transparency stays."""
    if picture.mode == "LA" or (picture.mode == "L" and "transparency" in picture.info):
        gray, alpha = picture.convert("LA").split()
        return PillowImage.merge("LA", (PillowImage.fromarray(window.apply(np.asarray(gray))), alpha))
    return PillowImage.fromarray(window.apply(np.asarray(picture)))


def _windowed_color(values: np.ndarray, window: Window) -> PillowImage.Image:
    """Color of 16 bits, uint16 [H, W, 3 or 4], seen through the window; its transparency stays."""
    shown = window.apply(values)
    shown[..., 3:] = values[..., 3:] >> 8
    return PillowImage.fromarray(shown)


def _to_rgb(picture: PillowImage.Image) -> PillowImage.Image:
    if picture.mode == "RGB" and "transparency" not in picture.info:
        return picture
    if picture.mode.startswith("I") or picture.mode == "F":
        return PillowImage.fromarray(_to_eight_bits(np.asarray(picture))).convert("RGB")
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        layer = picture.convert("RGBA")
        return PillowImage.alpha_composite(PillowImage.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return picture.convert("RGB")


def _to_eight_bits(values: np.ndarray) -> np.ndarray:
    """Gray values of more than 8 bits as uint8: 16-bit integers lose their low byte, others are stretched to 0..255."""
    if np.issubdtype(values.dtype, np.integer) and values.min() >= 0 and values.max() <= 0xFFFF:
        return (values.astype(np.uint16) >> 8).astype(np.uint8)
    values = np.nan_to_num(values.astype(np.float64), posinf=0, neginf=0)
    span = values.max() - values.min()
    return ((values - values.min()) * (255 / span if span else 0)).astype(np.uint8)


def _reason(error: Exception) -> str:
    return str(error)[:200] or type(error).__name__
