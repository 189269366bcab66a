"""Proposals of a checkpoint on an image; the helper's function runs in this process, on a small model's real file."""

from importlib import import_module

import pytest
import torch
from torchvision.ops import box_iou

from app.errors import BadRequest, NotFound
from app.jobs.helper import HelperFailed
from app.pipeline import first_stage
from app.pipeline.models import build
from app.services import jobs, proposals, truths
from app.services.lru_cache import LruCache
from tests.pipeline.train.test_predict_export import save_random_model
from tests.pipeline.train.tiny_dataset import construct_tiny
from tests.services.review_project import make_review_project


class Helper:
    """Calls what it is asked to, here and now, and counts."""

    def __init__(self):
        self.calls = 0

    def call(self, target, *, timeout_s, **arguments):
        self.calls += 1
        module, _, name = target.partition(":")
        return getattr(import_module(module), name)(**arguments)


@pytest.fixture
def helper(monkeypatch):
    made = Helper()
    monkeypatch.setattr(proposals, "shared_helper", lambda: made)
    monkeypatch.setattr(proposals, "_looks", LruCache(4))
    return made


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "ensure_worker", lambda services: None)
    monkeypatch.setattr(build, "construct", construct_tiny)
    project = make_review_project(tmp_path)
    categories = truths.load_truth(project.services, project.slug, project.run_id).categories
    save_random_model(project.services.files(project.slug).run(project.run_id) / "epoch-4.pt", categories)
    return project


def propose(project, image_id=None, top=50, checkpoint=0):
    image_id = image_id or project.image_ids["valid"][0]
    checkpoint_id = project.checkpoint_ids[checkpoint]
    return proposals.propose(project.services, project.slug, project.run_id, checkpoint_id, image_id, top)


def sample_of(project, image_id):
    return truths.load_truth(project.services, project.slug, project.run_id).samples.find(image_id)


def test_proposals_are_counted_against_the_labelled_boxes(project, helper):
    sample = sample_of(project, project.image_ids["valid"][0])
    path = project.services.files(project.slug).run(project.run_id) / "epoch-4.pt"
    look = first_stage.look_at(str(path), sample)
    for top in (5, 300):
        answer = propose(project, top=top)
        shown = look["proposals"][:top]
        assert [item["box"] for item in answer["proposals"]] == shown.tolist()
        assert [item["score"] for item in answer["proposals"]] == look["scores"][:top].tolist()
        assert answer["num_proposals"] == len(look["proposals"]) > 5
        truth = torch.from_numpy(sample.boxes)
        shown_ious, ious = (box_iou(truth, torch.from_numpy(boxes).double()) for boxes in (shown, look["proposals"]))
        assert [item["iou"] for item in answer["proposals"]] == pytest.approx(shown_ious.amax(0).tolist())
        for number, item in enumerate(answer["objects"]):
            best = [float(one[number].max()) for one in (shown_ious, ious)]
            assert [item["iou"], item["iou_all"]] == pytest.approx(best)
            assert (item["box"], item["label"]) == (sample.boxes[number].tolist(), sample.labels[number])
            assert item["anchor"] == look["anchors"][number].tolist()
        assert answer["covered"] == sum(item["iou"] >= 0.5 for item in answer["objects"])
        assert answer["covered_all"] == sum(item["iou_all"] >= 0.5 for item in answer["objects"])
    assert helper.calls == 1  # another top asks the model no more


def test_an_image_without_objects_has_proposals_all_the_same(project, helper):
    answer = propose(project, project.image_ids["valid"][-1])
    assert answer["objects"] == [] and answer["covered"] == 0
    assert answer["proposals"] and {item["iou"] for item in answer["proposals"]} == {0}


def test_what_is_gone_is_told_before_the_model_is_asked(project, helper):
    with pytest.raises(NotFound, match="weights of Epoch 3 are gone"):
        propose(project, checkpoint=1)
    with pytest.raises(NotFound, match="knows no image 999"):
        propose(project, image_id=999)
    with pytest.raises(BadRequest, match="1 to 300"):
        propose(project, top=0)
    with pytest.raises(NotFound, match=f"of run {project.run_id}, not of run 99"):
        proposals.propose(project.services, project.slug, 99, project.checkpoint_ids[0], 1)
    image_id = project.image_ids["valid"][1]
    sample_of(project, image_id).path.unlink()
    with pytest.raises(NotFound, match=r"valid_1\.png was deleted"):
        propose(project, image_id)
    assert helper.calls == 0


@pytest.mark.parametrize(
    ("raised", "kind", "said"),
    [
        (RuntimeError("CheckpointError: no checkpoint"), BadRequest, "Epoch 4 cannot look at valid_0.png: Checkpoint"),
        (HelperFailed("The helper process died."), HelperFailed, "died"),
    ],
)
def test_a_model_that_fails_says_which_and_why_and_is_asked_again(project, helper, monkeypatch, raised, kind, said):
    def fail(target, **arguments):
        raise raised

    monkeypatch.setattr(helper, "call", fail)
    with pytest.raises(kind, match=said):
        propose(project)
    monkeypatch.undo()
    monkeypatch.setattr(proposals, "shared_helper", Helper)
    monkeypatch.setattr(build, "construct", construct_tiny)
    assert propose(project)["proposals"]
