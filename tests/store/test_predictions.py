import numpy as np
import pytest

from app.errors import NotFound
from app.pipeline.types import Detections, PredictionTime
from app.store import jobs, predictions, runs
from app.store.database import ProjectDatabase


@pytest.fixture
def database(tmp_path):
    return ProjectDatabase.create(tmp_path / "project.db")


@pytest.fixture
def run_id(database):
    with database.write() as db:
        return runs.create_run(db, jobs.enqueue(db, "train", {}).id, "first", {})


def add_checkpoint(database, run_id, file_name="best.pt"):
    with database.write() as db:
        return runs.put_checkpoint(
            db,
            run_id,
            epoch=1,
            step=9,
            file_name=file_name,
            sha256="0" * 64,
            map50=0.5,
            f1=0.5,
            score=0.5,
            is_last=False,
        )


def found(count, seed=0):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 100, (count, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(1, 50, (count, 2))], axis=1)
    return Detections(boxes, rng.random(count), rng.integers(1, 5, count))


def store(database, run_id, detections, **values):
    with database.write() as db:
        return predictions.store_predictions(
            db, **{"run_id": run_id, "split": "valid", "detections": detections, "snapshot_sha256": "a" * 64, **values}
        )


def test_detections_come_back_bit_for_bit(database, run_id):
    given = {3: found(7), 9: Detections.empty(), 700: found(300, seed=1)}
    set_id = store(database, run_id, given, checkpoint_id=add_checkpoint(database, run_id))
    back = predictions.read_detections(database, set_id)
    assert set(back) == set(given)
    for image_id, expected in given.items():
        for name in ("boxes", "scores", "labels"):
            np.testing.assert_array_equal(getattr(back[image_id], name), getattr(expected, name))


def test_a_page_of_images_is_read_alone(database, run_id):
    given = {image_id: found(2, seed=image_id) for image_id in range(1200)}
    set_id = store(database, run_id, given, checkpoint_id=add_checkpoint(database, run_id))
    assert set(predictions.read_detections(database, set_id, [5, 1100, 99999])) == {5, 1100}
    assert len(predictions.read_detections(database, set_id, list(range(1200)))) == 1200


def test_what_predictions_took_is_kept_with_them(database, run_id):
    took = PredictionTime(12.5, "a gpu")
    timed = store(database, run_id, {1: found(3)}, checkpoint_id=add_checkpoint(database, run_id), took=took)
    untimed = store(database, run_id, {1: found(3)}, members=[timed])
    records = [predictions.get_set(database, set_id) for set_id in (timed, untimed)]
    assert [predictions.time_of(record) for record in records] == [took, None]
    assert (records[0].ms_per_image, records[0].device, records[1].device) == (12.5, "a gpu", "")


def test_storing_again_replaces_what_the_checkpoint_had_on_the_split(database, run_id):
    checkpoint_id = add_checkpoint(database, run_id)
    old = store(database, run_id, {1: found(3)}, checkpoint_id=checkpoint_id)
    other_split = store(database, run_id, {1: found(3)}, checkpoint_id=checkpoint_id, split="test")
    new = store(database, run_id, {2: found(1)}, checkpoint_id=checkpoint_id)
    assert [item.id for item in predictions.list_sets(database, run_id=run_id)] == [new, other_split]
    assert predictions.read_detections(database, old) == {}
    assert predictions.find_set(database, checkpoint_id, "valid").id == new
    assert predictions.find_set(database, checkpoint_id, "train") is None


def test_predictions_in_other_views_stand_side_by_side(database, run_id):
    checkpoint_id = add_checkpoint(database, run_id)
    plain = store(database, run_id, {1: found(3)}, checkpoint_id=checkpoint_id)
    flip = {"test_time_augmentation": "flip"}
    store(database, run_id, {1: found(2)}, checkpoint_id=checkpoint_id, options=flip)
    flipped = store(database, run_id, {1: found(4)}, checkpoint_id=checkpoint_id, options=flip)
    assert {item.id: item.test_time_augmentation for item in predictions.list_sets(database)} == {
        plain: "off",
        flipped: "flip",
    }
    assert predictions.find_set(database, checkpoint_id, "valid").id == plain
    assert predictions.find_set(database, checkpoint_id, "valid", "flip").id == flipped
    assert predictions.find_set(database, checkpoint_id, "valid", "flip_scales") is None


def test_ensembles_of_other_options_stand_side_by_side(database, run_id):
    first = store(database, run_id, {}, members=[1, 2], options={"method": "wbf"})
    second = store(database, run_id, {}, members=[1, 2], options={"method": "nms"})
    again = store(database, run_id, {}, members=[1, 2], options={"method": "wbf"})
    kept = {item.id: item for item in predictions.list_sets(database, split="valid")}
    assert set(kept) == {second, again}
    assert first not in kept
    assert (kept[again].kind, kept[again].members, kept[again].options) == ("ensemble", (1, 2), {"method": "wbf"})


def test_predictions_leave_with_their_checkpoint(database, run_id):
    set_id = store(database, run_id, {1: found(1)}, checkpoint_id=add_checkpoint(database, run_id))
    with database.write() as db:
        runs.remove_checkpoints(db, run_id, ["best.pt"])
    with pytest.raises(NotFound, match=f"set {set_id}"):
        predictions.get_set(database, set_id)
    assert predictions.read_detections(database, set_id) == {}


def test_a_failing_transaction_leaves_no_half_set(database, run_id):
    with pytest.raises(RuntimeError), database.write() as db:
        predictions.store_predictions(
            db, run_id=run_id, split="valid", detections={1: found(1)}, snapshot_sha256="a" * 64
        )
        raise RuntimeError("the disk is full")
    assert predictions.list_sets(database) == []
