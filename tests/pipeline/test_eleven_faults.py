"""Eleven faults of a published notebook (recipes, B), each of which gives a wrong result without a word.

Every test checks what is right, then puts the faulty version in its place and sees the same check fail.
"""

import dataclasses
import json
import re

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models.detection.image_list import ImageList

from app.pipeline.config import parse_config
from app.pipeline.data.categories import CategoryMap
from app.pipeline.data.pixels import ResizedImages
from app.pipeline.data.snapshot import load_snapshot
from app.pipeline.evaluate.coco_numbers import GroundTruth, evaluate
from app.pipeline.machine import choose_machine
from app.pipeline.models import build
from app.pipeline.models.anchor_generator import ShapedAnchorGenerator
from app.pipeline.models.build import build_model, constructor_arguments
from app.pipeline.predict import Detector
from app.pipeline.train import loader, loop, run, validation
from app.pipeline.train.checkpoint import Scores
from app.pipeline.train.keeper import CheckpointKeeper
from app.pipeline.train.loader import DatasetError, TrainLoader
from app.pipeline.train.loop import train
from app.pipeline.train.validation import Judge, Judgement
from app.pipeline.train.write_behind import WriteBehind
from app.pipeline.types import Detections, PredictionsReady, RunContext
from tests.pipeline.train.tiny_dataset import TINY, construct_tiny, tiny_snapshot, write_tiny_dataset

CONFIG = parse_config({**TINY, "max_detections": 100})


@pytest.fixture(autouse=True)
def tiny_model(monkeypatch):
    monkeypatch.setattr(build, "construct", construct_tiny)


@pytest.fixture
def snapshot(tmp_path):
    return tiny_snapshot(tmp_path)


def seen_by_the_check(*errors):
    return pytest.raises((AssertionError, *errors))


def tiny_detector(config=CONFIG):
    model = build_model(config, 2).eval()
    return Detector(model, CategoryMap((5, 9), ("red", "blue")), config, choose_machine("cpu", "float32"))


class Oracle:
    """Finds every labelled object, with the same score for all."""

    batch_size = 4
    took = None

    def __init__(self, score):
        self.score = score

    def predict_samples(self, samples, context, images, skip):
        for sample in samples:
            scores = np.full(len(sample.boxes), self.score, np.float32)
            yield sample.image_id, Detections(sample.boxes, scores, sample.labels)


def judge_of(snapshot, every=1):
    return Judge(snapshot.split("valid"), snapshot.categories, ResizedImages(64), every, RunContext())


def test_1_boxes_are_dropped_together_with_their_labels(tmp_path, monkeypatch):
    """torchvision trains on one box with two labels without a word."""
    path = write_tiny_dataset(tmp_path)
    document = json.loads(path.read_text())
    document["annotations"][0]["bbox"] = [70, 70, 9, 9]  # outside the picture: nothing is left of it when clipped
    path.write_text(json.dumps(document))
    samples = load_snapshot(path).split("train")
    expected = {sample.file_name: sample.labels.tolist() for sample in samples}
    lost = document["annotations"][0]["image_id"]
    expected[samples[lost - 1].file_name] = samples[lost - 1].labels.tolist()[1:]

    def check():
        found = {}
        for batch in TrainLoader(samples, 2, CONFIG, ResizedImages(64), RunContext()).epoch(1):
            for name, target in zip(batch.names, batch.targets, strict=True):
                assert len(target["boxes"]) == len(target["labels"])
                found[name] = target["labels"].tolist()
        assert found == expected

    check()
    right = loader.boxes_in_resized_frame
    monkeypatch.setattr(
        loader, "boxes_in_resized_frame", lambda sample, *rest: (right(sample, *rest)[0], sample.labels)
    )
    with seen_by_the_check(DatasetError, ValueError):
        check()


def test_2_map_and_f1_are_not_swapped_in_checkpoint_names(snapshot, tmp_path, monkeypatch):
    right = dataclasses.replace(
        evaluate(GroundTruth.from_samples(snapshot.split("valid"), snapshot.categories), {}), map50=0.75, f1=0.25
    )
    monkeypatch.setattr(validation, "evaluate", lambda *args: right)

    def check(folder):
        scores = judge_of(snapshot).judge(Oracle(1.0)).scores
        with WriteBehind() as writing:
            keeper = CheckpointKeeper(tmp_path / folder, CONFIG, snapshot.categories, RunContext(), writing)
            keeper.offer(nn.Linear(1, 1), scores, 1, 1)
            writing.finish()
        name = keeper.kept[0].file_name
        assert re.search(r"map50_([\d.]+)_f1_([\d.]+)\.pt", name).groups() == ("0.750", "0.250")
        assert json.loads(torch.load(tmp_path / folder / name)["metrics_json"])["map50"] == 0.75

    check("right")
    monkeypatch.setattr(
        validation, "Scores", lambda map, map50, map75, f1, metric: Scores(map, f1, map75, map50, metric)
    )
    with seen_by_the_check():
        check("faulty")


def test_3_an_image_is_one_sample_with_all_its_boxes(snapshot):
    """An id for each annotation makes every other object of the image a false positive or a miss."""
    perfect = {sample.image_id: Detections(sample.boxes, np.ones(2), sample.labels) for sample in snapshot.samples[1:4]}

    def check(samples):
        assert len({sample.image_id for sample in samples}) == len(samples) == 3
        assert evaluate(GroundTruth.from_samples(samples, snapshot.categories), perfect).map == pytest.approx(1)

    check(snapshot.samples[1:4])
    one_by_one = [
        dataclasses.replace(
            sample,
            image_id=10 * sample.image_id + row,
            boxes=sample.boxes[row : row + 1],
            labels=sample.labels[row : row + 1],
            is_crowd=sample.is_crowd[row : row + 1],
        )
        for sample in snapshot.samples[1:4]
        for row in range(len(sample.boxes))
    ]
    with seen_by_the_check():
        check(one_by_one)


@pytest.mark.parametrize("ids", [(1, 2), (0, 1), (5, 9), (7,)], ids=["from 1", "from 0", "with gaps", "one class"])
def test_4_the_head_has_a_class_for_each_category_and_the_background(ids):
    """Roboflow's unused category 0 makes len(categories) right by luck; every other file trains on wrong classes."""
    categories = CategoryMap(ids, tuple("abcdefg"[: len(ids)]))

    def check(num_classes):
        labels = [categories.label_of(category_id) for category_id in ids]
        assert num_classes == len(labels) + 1
        assert 0 not in labels
        assert max(labels) < num_classes

    check(constructor_arguments(CONFIG, len(categories))["num_classes"])
    check(tiny_classes(len(categories)))
    with seen_by_the_check():
        check(len(categories))


def tiny_classes(num_categories):
    return build_model(CONFIG, num_categories).roi_heads.box_predictor.cls_score.out_features


def test_5_average_precision_sees_every_prediction(snapshot, monkeypatch):
    """The same detector scored mAP50 .631 unfiltered, .520 cut at .3 and .352 at .5."""

    def check(config=CONFIG):
        assert judge_of(snapshot).judge(Oracle(score=0.2)).scores.map50 == pytest.approx(1)
        assert tiny_detector(config).model.roi_heads.score_thresh == 0

    check()
    with seen_by_the_check():
        check(parse_config({**TINY, "max_detections": 100, "score_threshold": 0.3}))
    monkeypatch.setattr(
        validation,
        "evaluate",
        lambda truth, found: evaluate(truth, {key: one.select(one.scores >= 0.3) for key, one in found.items()}),
    )
    with seen_by_the_check():
        check()


def test_6_validation_has_its_last_images(snapshot, monkeypatch):
    samples = snapshot.split("valid")  # three, in batches of two

    def check():
        found = judge_of(snapshot).judge(tiny_detector()).detections
        assert set(found) == {sample.image_id for sample in samples}

    check()
    right = Detector.predict_samples
    dropping = lambda self, some, *rest, **how: right(self, some[: len(some) // 2 * 2], *rest, **how)  # noqa: E731
    monkeypatch.setattr(Detector, "predict_samples", dropping)
    with seen_by_the_check():
        check()


def test_7_anchors_are_set_when_the_detector_is_built():
    """An attribute put on the finished model is never looked at: the RPN has its own generator, and its cells."""
    sizes = [8.0, 16.0, 24.0, 40.0, 64.0]
    config = parse_config({**TINY, "max_detections": 100, "anchors": "custom", "anchor_sizes": sizes})

    def check(model):
        images = torch.zeros(1, 3, 64, 64)
        features = list(model.backbone(images).values())
        (anchors,) = model.rpn.anchor_generator(ImageList(images, [(64, 64)]), features)
        sides = (anchors[:, 2:] - anchors[:, :2]).prod(dim=1).sqrt()
        nearest = (sides[:, None] - torch.tensor(sizes)).abs().min(dim=1)  # torchvision rounds its cells to pixels
        assert nearest.values.max() < 1
        assert set(nearest.indices.tolist()) == set(range(len(sizes)))
        assert len(anchors) == sum(level[0, 0].numel() for level in features) * model.rpn.head.cls_logits.out_channels

    check(build_model(config, 2))
    generator = build_model(config, 2).rpn.anchor_generator
    assert isinstance(generator, ShapedAnchorGenerator)
    outside, inside = build_model(CONFIG, 2), build_model(CONFIG, 2)
    outside.rpn_anchor_generator = generator
    inside.rpn.anchor_generator.sizes = generator.sizes
    for model in (outside, inside):
        with seen_by_the_check():
            check(model)


def test_8_predictions_do_not_leak_from_one_trial_into_the_next(tmp_path, monkeypatch):
    trials = []
    for name, num_train in (("first", 2), ("second", 6)):  # so that their validation images have other ids
        (tmp_path / name).mkdir()
        trials.append(tiny_snapshot(tmp_path / name, num_train=num_train, num_valid=2))

    def check(folder):
        for number, snapshot in enumerate(trials):
            events = []
            train(parse_config(TINY), snapshot, tmp_path / f"{folder}{number}", RunContext(events.append))
            (ready,) = [event for event in events if isinstance(event, PredictionsReady)]
            assert set(ready.detections) == {sample.image_id for sample in snapshot.split("valid")}

    check("right")
    right, kept = Judge.judge, {}

    def leaking(*given):
        judgement = right(*given)
        kept.update(judgement.detections)
        return Judgement(judgement.scores, dict(kept))

    monkeypatch.setattr(Judge, "judge", leaking)
    with seen_by_the_check():
        check("faulty")


def test_9_validation_images_are_never_augmented(snapshot, tmp_path, monkeypatch):
    config = parse_config({**TINY, "augmentation": [{"name": "VerticalFlip", "probability": 1}]})
    plain = {sample.image_id: ResizedImages(64).read(sample) for sample in snapshot.split("valid")}
    pixels = []
    detect = Detector._detect
    monkeypatch.setattr(
        Detector, "_detect", lambda self, images, *rest: pixels.extend(images) or detect(self, images, *rest)
    )

    def check(folder):
        pixels.clear()
        train(config, snapshot, tmp_path / folder)
        assert len(pixels) == len(plain)
        assert all(np.array_equal(seen, wanted) for seen, wanted in zip(pixels, plain.values(), strict=True))

    check("right")
    judge = run.Judge

    class Flipped(ResizedImages):
        def read(self, sample):
            return np.ascontiguousarray(super().read(sample)[::-1])

    monkeypatch.setattr(
        run, "Judge", lambda samples, categories, images, *rest: judge(samples, categories, Flipped(64), *rest)
    )
    with seen_by_the_check():
        check("faulty")


def weights_of(model):
    return torch.cat([parameter.detach().reshape(-1).clone() for parameter in model.parameters()])


def test_10_gradients_are_clipped_in_every_step_of_every_epoch(snapshot, tmp_path, monkeypatch):
    """Seen by how far the weights go: with plain SGD no step is longer than the rate times the largest norm."""
    rate, largest = 0.1, 1e-3
    plain = {"optimizer": "sgd", "momentum": 0, "weight_decay": 0, "learning_rate": rate, "schedule": "constant"}
    config = parse_config({**TINY, **plain, "warmup_steps": 0, "epochs": 3, "clip_gradient_norm": largest})
    lengths = []
    step = loop.train_step

    def measured(run, batches, epoch):
        before = weights_of(run.learner.model)
        step(run, batches, epoch)
        lengths.append((epoch, float((weights_of(run.learner.model) - before).norm())))

    monkeypatch.setattr(loop, "train_step", measured)

    def check(folder):
        lengths.clear()
        train(config, snapshot, tmp_path / folder)
        assert [epoch for epoch, _ in lengths] == [1, 1, 2, 2, 3, 3]
        assert all(0 < length <= rate * largest * 1.01 for _, length in lengths)

    check("right")
    clip, calls = nn.utils.clip_grads_with_norm_, []

    def in_the_first_epoch(parameters, largest_norm, norm):
        calls.append(1)
        if len(calls) <= 2:
            clip(parameters, largest_norm, norm)

    monkeypatch.setattr(torch.nn.utils, "clip_grads_with_norm_", in_the_first_epoch)
    with seen_by_the_check():
        check("faulty")


def test_11_deterministic_and_benchmark_modes_are_never_both_on(snapshot, tmp_path, monkeypatch):
    """Benchmark picks another algorithm from run to run, which is what deterministic is there to prevent."""
    cudnn = torch.backends.cudnn
    for name in ("deterministic", "benchmark"):
        monkeypatch.setattr(cudnn, name, getattr(cudnn, name))  # put back afterwards
    modes = []
    step = loop.train_step

    def watched(run, batches, epoch):
        modes.append((cudnn.deterministic, cudnn.benchmark))
        step(run, batches, epoch)

    monkeypatch.setattr(loop, "train_step", watched)

    def check(folder):
        modes.clear()
        train(CONFIG, snapshot, tmp_path / folder)
        assert modes
        assert (True, True) not in modes

    check("right")
    choose = run.choose_machine

    def seeded(*args):
        cudnn.deterministic = cudnn.benchmark = True
        return choose(*args)

    monkeypatch.setattr(run, "choose_machine", seeded)
    with seen_by_the_check():
        check("faulty")
