"""Pictures for the browser: the stored file where it can be shown as it is, else a rendering kept on disk."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app.errors import NotFound, UserError
from app.pipeline.data.image import BadImage, Window, encode_jpeg, read_image, read_thumbnail, takes_window
from app.records import Image
from app.services import gray_window
from app.services.context import Services
from app.store import images
from app.store.files import ProjectFiles, replacing

THUMBNAIL_SIZES = (128, 256, 512)
FULL_QUALITY = 95
THUMBNAIL_QUALITY = 82

MEDIA_TYPES = {
    "jpg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "bmp": "image/bmp",
    "tiff": "image/tiff",
}


@dataclass(frozen=True, slots=True)
class Picture:
    """A file to send. ``version`` changes with its contents and goes into the address, so that it can be cached."""

    path: Path
    media_type: str
    version: str


@dataclass(frozen=True, slots=True)
class _Found:
    """A stored picture and how it is to be seen: ``look`` names the window where one acts, "" otherwise."""

    files: ProjectFiles
    image: Image
    path: Path
    needs_rendering: bool
    takes_window: bool
    window: Window | None

    @property
    def look(self) -> str:
        return f"w{self.window.center:g}-{self.window.width:g}" if self.takes_window and self.window else ""

    @property
    def version(self) -> str:
        """What the picture's address carries as ``v``: contents and rotation.

        Gray pictures also change with the project's window, which addresses do not name: browsers ask again for them.
        """
        version = f"{self.image.sha256[:16]}-{self.image.rotation}"
        return f"gray{self.look}-{version}" if self.takes_window else version


def full_picture(services: Services, slug: str, image_id: int) -> Picture:
    """The whole upright picture, rendered where a browser would show the stored file otherwise.

    Gray values are seen through the project's window, as training sees them. Raises NotFound for an unknown image or a
    file that is gone, UserError for one that cannot be read any more.
    """
    found = _find(services, slug, image_id)
    if not found.needs_rendering and not found.image.rotation and not found.look:
        return Picture(_stored(found), MEDIA_TYPES[found.image.extension], found.version)
    path = found.files.rendering(found.image.sha256, found.image.rotation, look=found.look)
    if not path.is_file():
        _render(found, None, path)
    return Picture(path, "image/jpeg", found.version)


def thumbnail(services: Services, slug: str, image_id: int, size: int) -> Picture:
    """The upright picture with at most the next of THUMBNAIL_SIZES on its longer side; raises as above."""
    size = next((one for one in THUMBNAIL_SIZES if one >= size), THUMBNAIL_SIZES[-1])
    found = _find(services, slug, image_id)
    path = found.files.rendering(found.image.sha256, found.image.rotation, size, look=found.look)
    if not path.is_file():
        _render(found, size, path)
    return Picture(path, "image/jpeg", f"{found.version}-{size}")


def _find(services: Services, slug: str, image_id: int) -> _Found:
    files = services.files(slug)
    with services.database(slug).read() as db:
        image = images.get(db, image_id)
        needs_rendering = images.needs_rendering(db, image_id)
    path = files.image(image.sha256, image.extension)
    return _Found(files, image, path, needs_rendering, _takes_window(path), gray_window.load(services, slug))


def _takes_window(path: Path) -> bool:
    try:
        return takes_window(path)
    except (BadImage, OSError):
        return False  # whoever needs its pixels says what is wrong


def _stored(found: _Found) -> Path:
    if not found.path.is_file():
        name, folder = found.image.file_name, found.files.images
        raise NotFound(f"The file of {name} is gone from {folder}.", "Import the image again.")
    return found.path


def _render(found: _Found, size: int | None, target: Path) -> None:
    stored, rotation, window = _stored(found), found.image.rotation, found.window
    try:
        if size is None:
            pixels = read_image(stored, rotation, window)
        else:
            pixels = read_thumbnail(stored, size, rotation, window)
    except (BadImage, OSError) as error:
        raise UserError(f"{found.image.file_name} cannot be shown: {error}.", "Import the image again.") from error
    _write(pixels, FULL_QUALITY if size is None else THUMBNAIL_QUALITY, target)


def _write(pixels: np.ndarray, quality: int, target: Path) -> None:
    with replacing(target) as temporary:
        temporary.write_bytes(encode_jpeg(pixels, quality))
