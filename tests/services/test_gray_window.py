"""The project's window on gray values: kept, shown in pictures, and where new runs start from."""

import cv2
import numpy as np
import pytest

from app.errors import BadRequest
from app.pipeline.data.image import Window, read_image
from app.services import gray_window, pictures, projects, suggestions
from app.services.context import Services
from app.store.files import Workspace
from tests.services.augment_project import put_image

DEEP = np.repeat(np.linspace(1000, 1400, 80, dtype=np.uint16)[None], 60, axis=0)


@pytest.fixture
def services(tmp_path):
    return Services(Workspace(tmp_path / "projects"))


def make_project(services, pixels, needs_rendering=False):
    slug = projects.create_project(services, "deep")
    image_id = put_image(services, slug, cv2.imencode(".png", pixels)[1].tobytes())
    if needs_rendering:
        with services.database(slug).write() as db:
            db.execute("UPDATE image SET needs_rendering = 1")
    return slug, image_id


def test_window_is_kept_and_goes_into_new_runs(services):
    slug, _ = make_project(services, DEEP, needs_rendering=True)
    assert gray_window.load(services, slug) is None
    assert "window_width" not in suggestions.suggested_values(services, slug)
    answer = gray_window.save(services, slug, 1200, 400)
    assert answer["window"] == {"center": 1200, "width": 400}
    assert answer["range"] == pytest.approx([1004, 1396], abs=6)
    values = suggestions.suggested_values(services, slug)
    assert (values["window_center"], values["window_width"]) == (1200, 400)
    assert gray_window.save(services, slug, 0, 0)["window"] is None


@pytest.mark.parametrize(("center", "width", "said"), [(0, -1, "width"), (1e6, 10, "center"), (0, 1e9, "width")])
def test_window_out_of_range_is_refused(services, center, width, said):
    slug, _ = make_project(services, DEEP)
    with pytest.raises(BadRequest, match=said):
        gray_window.save(services, slug, center, width)
    assert gray_window.load(services, slug) is None


def test_project_of_color_pictures_has_no_range(services):
    slug, _ = make_project(services, np.zeros((60, 80, 3), np.uint8))
    assert gray_window.describe(services, slug) == {"window": None, "range": None}


@pytest.mark.parametrize(
    ("pixels", "needs_rendering", "window"),
    [(DEEP, True, (1200, 400)), ((DEEP // 8).astype(np.uint8), False, (150, 50))],
    ids=["16 bits", "8 bits, which a browser could show"],
)
def test_pictures_show_what_training_sees_and_change_with_the_window(services, pixels, needs_rendering, window):
    slug, image_id = make_project(services, pixels, needs_rendering)
    before = pictures.full_picture(services, slug, image_id)
    gray_window.save(services, slug, *window)
    for picture in (pictures.full_picture(services, slug, image_id), pictures.thumbnail(services, slug, image_id, 128)):
        shown = read_image(picture.path)
        stored = next(services.files(slug).images.rglob("*.png"))
        trained = read_image(stored, window=Window(*window))
        assert abs(shown.astype(int) - trained).max() <= 8  # JPEG
        assert picture.version != before.version
        assert picture.media_type == "image/jpeg"
    gray_window.save(services, slug, 0, 0)
    assert pictures.full_picture(services, slug, image_id) == before


def test_address_without_the_window_is_asked_for_again(services):
    """Addresses carry contents and rotation: under them alone, a browser would keep the picture as it first was."""
    slug, image_id = make_project(services, DEEP, needs_rendering=True)
    with services.database(slug).read() as db:
        address = db.execute("SELECT substr(sha256, 1, 16) || '-' || rotation FROM image").fetchone()[0]
    for window in ((0, 0), (1200, 400)):
        gray_window.save(services, slug, *window)
        version = pictures.full_picture(services, slug, image_id).version
        assert version != address
        assert not version.startswith(f"{address}-")


def test_color_pictures_stay_as_they_are(services):
    slug, image_id = make_project(services, np.full((60, 80, 3), 90, np.uint8))
    before = pictures.full_picture(services, slug, image_id)
    gray_window.save(services, slug, 100, 10)
    assert pictures.full_picture(services, slug, image_id) == before
