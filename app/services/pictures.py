"""Pictures for the browser: the stored file where it can be shown as it is, else a rendering kept on disk."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app.errors import NotFound, UserError
from app.pipeline.data.image import BadImage, encode_jpeg, read_image, read_thumbnail
from app.records import Image
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


def version_of(image: Image) -> str:
    """What the picture's address carries as ``v``; it names contents and rotation."""
    return f"{image.sha256[:16]}-{image.rotation}"


def full_picture(services: Services, slug: str, image_id: int) -> Picture:
    """The whole upright picture, rendered where a browser would show the stored file otherwise.

    Raises NotFound for an unknown image or a file that is gone, UserError for one that cannot be read any more.
    """
    files, image, needs_rendering = _find(services, slug, image_id)
    stored = _stored(files, image)
    if not needs_rendering and not image.rotation:
        return Picture(stored, MEDIA_TYPES[image.extension], version_of(image))
    path = files.rendering(image.sha256, image.rotation)
    if not path.is_file():
        _render(stored, image, None, path)
    return Picture(path, "image/jpeg", version_of(image))


def thumbnail(services: Services, slug: str, image_id: int, size: int) -> Picture:
    """The upright picture with at most the next of THUMBNAIL_SIZES on its longer side; raises as above."""
    size = next((one for one in THUMBNAIL_SIZES if one >= size), THUMBNAIL_SIZES[-1])
    files, image, _ = _find(services, slug, image_id)
    path = files.rendering(image.sha256, image.rotation, size)
    if not path.is_file():
        _render(_stored(files, image), image, size, path)
    return Picture(path, "image/jpeg", f"{version_of(image)}-{size}")


def _find(services: Services, slug: str, image_id: int) -> tuple[ProjectFiles, Image, bool]:
    with services.database(slug).read() as db:
        image = images.get(db, image_id)
        needs_rendering = images.needs_rendering(db, image_id)
    return services.files(slug), image, needs_rendering


def _stored(files: ProjectFiles, image: Image) -> Path:
    path = files.image(image.sha256, image.extension)
    if not path.is_file():
        raise NotFound(f"The file of {image.file_name} is gone from {files.images}.", "Import the image again.")
    return path


def _render(stored: Path, image: Image, size: int | None, target: Path) -> None:
    try:
        pixels = read_image(stored, image.rotation) if size is None else read_thumbnail(stored, size, image.rotation)
    except (BadImage, OSError) as error:
        raise UserError(f"{image.file_name} cannot be shown: {error}.", "Import the image again.") from error
    _write(pixels, FULL_QUALITY if size is None else THUMBNAIL_QUALITY, target)


def _write(pixels: np.ndarray, quality: int, target: Path) -> None:
    with replacing(target) as temporary:
        temporary.write_bytes(encode_jpeg(pixels, quality))
