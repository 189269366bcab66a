"""The chain kept with a project, and its preview through the helper."""

import cv2
import numpy as np
import pytest

from app.errors import BadRequest, NotFound
from app.services import augmenting, projects, suggestions
from app.services.context import Services
from app.store.files import Workspace
from tests.services.augment_project import put_image

FLIP = {"name": "HorizontalFlip", "probability": 1}


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    return Services(Workspace(tmp_path_factory.mktemp("projects")))


@pytest.fixture(scope="module")
def slug(services):
    return projects.create_project(services, "flips")


@pytest.fixture(scope="module")
def image_id(services, slug):
    return put_image(services, slug, cv2.imencode(".png", np.zeros((60, 80, 3), np.uint8))[1].tobytes())


def test_chain_is_kept_with_its_project_in_order(services, slug):
    suggested = augmenting.load(services, slug)
    saved = augmenting.save(services, slug, [FLIP, {"name": "Rotate", "strength": {"limit": 5}, "is_enabled": False}])
    assert [step.name for step in saved] == ["HorizontalFlip", "Rotate"]
    assert augmenting.load(services, slug) == saved
    other = projects.create_project(services, "other")
    assert augmenting.load(services, other) == suggested


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([FLIP, {"name": "Flop"}], "step 2: there is no augmentation 'Flop'"),
        ([{"name": "Rotate", "strength": {"limit": 500}}], "step 1: Rotate: limit must lie in 0..180, got 500"),
        (["HorizontalFlip"], "step 1"),  # a name is not a step
        ([FLIP] * 41, "at most 40 steps, got 41"),
    ],
)
def test_wrong_chain_is_refused_and_the_kept_one_stays(services, slug, steps, said):
    kept = augmenting.save(services, slug, [FLIP])
    with pytest.raises(BadRequest, match=said):
        augmenting.save(services, slug, steps)
    assert augmenting.load(services, slug) == kept


def test_preview_gives_original_and_variants_with_category_ids(services, slug, image_id):
    made = augmenting.preview(services, slug, steps=[FLIP], image_id=image_id, seed=1, count=3, size=160)
    assert made["original"]["boxes"] == [[0, 20, 40, 60]]  # the crowd is not trained on and not shown
    assert made["original"]["labels"] == [11]
    assert [item["boxes"] for item in made["variants"]] == [[[120, 20, 160, 60]]] * 3
    assert made["variants"][0]["jpeg"][:2] == b"\xff\xd8"


def test_boxes_that_a_step_kills_are_counted(services, slug, image_id):
    strong = {"name": "CoarseDropout", "probability": 1, "strength": {"size": 0.6, "holes": 20}}
    made = augmenting.preview(services, slug, steps=[strong] * 6, image_id=image_id, seed=1, count=16, size=160)
    assert sum(item["lost"] for item in made["variants"]) > 0
    assert all(item["lost"] + len(item["boxes"]) == 1 for item in made["variants"])


def test_steps_that_mix_images_take_the_train_split_in_its_order(services):
    """What the helper is asked for; that the same partners make the same picture is the preview's own test."""
    slug = projects.create_project(services, "mixed")
    ids = [
        put_image(services, slug, cv2.imencode(".png", np.full((60, 80, 3), n, np.uint8))[1].tobytes()) for n in (1, 2)
    ]
    put_image(services, slug, b"", problem="Width and height are swapped.")
    with services.database(slug).read() as db:
        partners = augmenting._partners(db, services.files(slug))
    assert [boxes.tolist() for _, _, boxes, _ in partners] == [[[0, 10, 20, 30]]] * len(ids)  # no crowds
    assert [labels.tolist() for *_, labels in partners] == [[11]] * len(ids)
    mosaic = {"name": "Mosaic", "probability": 1}
    made = augmenting.preview(services, slug, steps=[mosaic], image_id=ids[0], seed=1, count=4, size=160)
    assert made["images_per_s"] > 0
    assert len({item["jpeg"] for item in made["variants"]}) == 4


def test_late_epochs_are_the_last_ones_with_fewer_strong_steps(services, slug, image_id):
    augmenting.save_curve(services, slug, augmenting.StrongSteps("linear", 2))
    assert augmenting.load_curve(services, slug).shares(5) == pytest.approx([1, 2 / 3, 1 / 3, 0, 0])
    crop = {"name": "BBoxSafeRandomCrop", "probability": 1}
    values = {"steps": [crop], "image_id": image_id, "seed": 1, "size": 160}
    late = augmenting.preview(services, slug, count=3, late_of=5, **values)
    whole = late["original"]["boxes"]
    assert [item["epoch"] for item in late["variants"]] == [3, 4, 5]
    assert [item["boxes"] == whole for item in late["variants"]][1:] == [True, True]  # off in the last two
    early = augmenting.preview(services, slug, count=3, **values)
    assert not any(item["boxes"] == whole for item in early["variants"])


def test_curve_goes_into_new_runs(services):
    slug = projects.create_project(services, "fading")
    augmenting.save_curve(services, slug, augmenting.StrongSteps("cosine", 3))
    values = suggestions.suggested_values(services, slug)
    assert (values["augmentation_curve"], values["augmentation_off_epochs"]) == ("cosine", 3)


def test_images_that_cannot_be_previewed_are_told(services, slug):
    quarantined = put_image(services, slug, b"", problem="Width and height are swapped.")
    broken = put_image(services, slug, b"no picture")
    values = {"steps": [FLIP], "seed": 1, "count": 1, "size": 64}
    with pytest.raises(BadRequest, match="swapped"):
        augmenting.preview(services, slug, image_id=quarantined, **values)
    with pytest.raises(BadRequest, match=r"a\.png cannot be previewed"):
        augmenting.preview(services, slug, image_id=broken, **values)
    with pytest.raises(NotFound, match="no image 999"):
        augmenting.preview(services, slug, image_id=999, **values)
