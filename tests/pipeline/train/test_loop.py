"""A run from its config to its checkpoints, on a dataset that trains in a second."""

import json

import pytest
import torch
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead

from app.pipeline.augment.chain import Chain
from app.pipeline.config import parse_config
from app.pipeline.losses import IGNORED
from app.pipeline.models import build, heads, proposals
from app.pipeline.models.build import build_model
from app.pipeline.timeline import PARTS
from app.pipeline.train import learner, loop
from app.pipeline.train.checkpoint import load_checkpoint
from app.pipeline.train.loader import DatasetError
from app.pipeline.train.loop import train
from app.pipeline.train.optim import NonFiniteLoss
from app.pipeline.train.run import Run
from app.pipeline.train.validation import Judge
from app.pipeline.types import CheckpointSaved, Log, Metrics, PredictionsReady, Progress, RunContext
from benchmarks.step_calls import as_on_a_gpu, count_calls
from tests.pipeline.train.run_lab import final_state
from tests.pipeline.train.tiny_dataset import TINY, construct_tiny, tiny_snapshot

LOSSES = {"loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg"}


@pytest.fixture(autouse=True)
def tiny_model(monkeypatch):
    monkeypatch.setattr(build, "construct", construct_tiny)


@pytest.fixture
def snapshot(tmp_path):
    return tiny_snapshot(tmp_path)


def of_kind(events, kind):
    return [event for event in events if isinstance(event, kind)]


def test_run_emits_losses_scores_predictions_and_checkpoints(snapshot, tmp_path):
    events = []
    result = train(parse_config({**TINY, "epochs": 2}), snapshot, tmp_path / "run", RunContext(emit=events.append))
    assert (result.state, result.epochs) == ("done", 2)
    steps = [event for event in of_kind(events, Metrics) if event.split == "train"]
    assert [(event.step, event.epoch) for event in steps] == [(1, 1), (2, 1), (3, 2), (4, 2)]
    for event in steps:
        assert set(event.values) == LOSSES | {"loss", "learning_rate"}
        assert event.values["loss"] == pytest.approx(sum(event.values[name] for name in LOSSES), rel=1e-5)
    system = [event.values for event in of_kind(events, Metrics) if event.split == "system"]
    shares = {name: value for name, value in system[-1].items() if name.startswith("share_")}
    assert set(shares) == {f"share_{part}" for part in PARTS}
    assert set(system[0]) - set(shares) == {"images_per_s", "memory_mb"}
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["share_evaluation"] > 0
    scored = [event for event in of_kind(events, Metrics) if event.split == "valid"]
    assert scored[-1].epoch == 2
    assert set(scored[-1].values) == {"map", "map50", "map75", "f1", "score"}
    assert of_kind(events, Progress)[-1].done == of_kind(events, Progress)[-1].total == 4
    saved = of_kind(events, CheckpointSaved)
    assert saved[-1].file_name == "last.pt"
    assert saved[-1].is_last
    assert result.best["score"] == max(event.score for event in saved)


@pytest.mark.parametrize("is_stopped", [False, True])
def test_the_last_pace_is_not_that_of_nothing(snapshot, tmp_path, monkeypatch, is_stopped):
    """With a report at each step no image is left for the report at the end: it must not say 0 images a second."""
    monkeypatch.setattr("app.pipeline.train.pace.REPORT_EVERY_S", 0.0)
    events = []
    context = RunContext(events.append, lambda: is_stopped)
    train(parse_config(TINY), snapshot, tmp_path / "run", context)
    paces = [event.values for event in of_kind(events, Metrics) if event.split == "system"]
    assert all(values["images_per_s"] > 0 for values in paces if "images_per_s" in values)
    assert "images_per_s" in paces[0]


def test_every_validation_image_is_predicted_for_each_kept_checkpoint(snapshot, tmp_path):
    """Three images in batches of two: a loader that drops its last batch would score on two."""
    events = []
    train(parse_config(TINY), snapshot, tmp_path / "run", RunContext(emit=events.append))
    (ready,) = of_kind(events, PredictionsReady)
    assert set(ready.detections) == {sample.image_id for sample in snapshot.split("valid")}
    before = events[events.index(ready) - 1]
    assert isinstance(before, CheckpointSaved)
    assert before.file_name == ready.file_name
    assert ready.took.ms_per_image > 0 and ready.took.device.startswith("cpu")


def test_validation_is_never_augmented(snapshot, tmp_path, monkeypatch):
    seen = set()
    apply = Chain.apply

    def note(self, *args, **kwargs):
        seen.add(kwargs["image_id"])
        return apply(self, *args, **kwargs)

    monkeypatch.setattr(Chain, "apply", note)
    config = parse_config({**TINY, "augmentation": [{"name": "HorizontalFlip", "probability": 1}]})
    train(config, snapshot, tmp_path / "run")
    assert seen == {sample.image_id for sample in snapshot.split("train")}


def test_checkpoints_hold_tensors_and_text_and_load_without_running_code(snapshot, tmp_path):
    train(parse_config(TINY), snapshot, tmp_path / "run")
    (best,) = (tmp_path / "run").glob("epoch_*.pt")
    document = torch.load(best, weights_only=True)
    assert set(document) == {"model", "config_json", "categories_json", "metrics_json", "epoch", "step"}
    assert json.loads(document["categories_json"]) == [{"id": 5, "name": "red"}, {"id": 9, "name": "blue"}]
    last = torch.load(tmp_path / "run" / "last.pt", weights_only=True)
    assert {"optimizer", "scaler", "random_states", "progress_json", "format"} <= set(last)
    checkpoint = load_checkpoint(best)
    assert checkpoint.config.max_detections == 100
    expected = build_model(checkpoint.config, 2).state_dict()
    assert {name: value.shape for name, value in checkpoint.tensors.items()} == {
        n: v.shape for n, v in expected.items()
    }


def test_same_seed_gives_the_same_weights(snapshot, tmp_path):
    config = parse_config({**TINY, "augmentation": [{"name": "HorizontalFlip"}]})
    weights = []
    for name in ("first", "second"):
        train(config, snapshot, tmp_path / name)
        weights.append(load_checkpoint(tmp_path / name / "last.pt").tensors)
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_stop_is_obeyed_after_the_step_and_saves_where_the_run_stands(snapshot, tmp_path):
    events = []

    def should_stop():
        return any(event.split == "train" for event in of_kind(events, Metrics))

    config = parse_config({**TINY, "epochs": 50})
    result = train(config, snapshot, tmp_path / "run", RunContext(events.append, should_stop))
    assert (result.state, result.epochs, result.best) == ("stopped", 0, {})
    assert len([event for event in of_kind(events, Metrics) if event.split == "train"]) == 1
    assert load_checkpoint(tmp_path / "run" / "last.pt").step == 1


def test_stop_during_validation_keeps_no_half_judged_checkpoint(snapshot, tmp_path, monkeypatch):
    asked = []
    judge = Judge.judge
    monkeypatch.setattr(Judge, "judge", lambda *given: asked.append(1) or judge(*given))
    events = []
    config = parse_config({**TINY, "epochs": 3})
    result = train(config, snapshot, tmp_path / "run", RunContext(events.append, lambda: bool(asked)))
    assert result.state == "stopped"
    assert not of_kind(events, PredictionsReady)
    assert [event.file_name for event in of_kind(events, CheckpointSaved)] == ["last.pt"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_loss_that_is_not_finite_is_seen_before_the_weights_change(snapshot, tmp_path, monkeypatch, value):
    compute = learner.compute_losses
    models = []

    def broken(model, *others):
        models.append({name: tensor.clone() for name, tensor in model.named_parameters()} | {"": model})
        return {**compute(model, *others), "loss_box_reg": torch.tensor(value, requires_grad=True)}

    monkeypatch.setattr(learner, "compute_losses", broken)
    with pytest.raises(NonFiniteLoss, match=r"loss_box_reg became (nan|inf) .*train_\d\.png, train_\d\.png"):
        train(parse_config(TINY), snapshot, tmp_path / "run")
    model = models[0].pop("")
    assert all(torch.equal(models[0][name], tensor) for name, tensor in model.named_parameters())


def with_norm_in_the_head(name, arguments):
    """As the v2 models have it: there each region counts in the statistics."""
    model = construct_tiny(name, arguments)
    model.roi_heads.box_head = FastRCNNConvFCHead((16, 7, 7), [8], [32], norm_layer=torch.nn.BatchNorm2d)
    return model


@pytest.mark.parametrize("construct", [construct_tiny, with_norm_in_the_head])
def test_a_step_waits_for_the_device_once(snapshot, tmp_path, monkeypatch, construct):
    """For its losses, with which all else that is asked of the device comes along."""
    monkeypatch.setattr(build, "construct", construct)
    with as_on_a_gpu():
        run = Run.start(parse_config(TINY), snapshot, tmp_path / "run", RunContext())
        with run.loader:
            batches = next(run.loader.steps(1))
            counter = count_calls(lambda: loop.train_step(run, batches, 1))
    assert run.step == 2
    assert counter.waits == ["tolist"]


def test_step_whose_nms_was_not_settled_is_done_again_to_the_same_bits(snapshot, tmp_path, monkeypatch):
    """With the same dice, and batch norm does not count its images twice."""

    def with_norm(name, arguments):
        model = construct_tiny(name, arguments)
        model.backbone.body.layer1.append(torch.nn.BatchNorm2d(8))
        return model

    monkeypatch.setattr(build, "construct", with_norm)
    computed, compute = [], learner.compute_losses
    monkeypatch.setattr(learner, "compute_losses", lambda *others: computed.append(others[-1]) or compute(*others))
    states = []
    for rounds in (proposals.ROUNDS_AT_ONCE, 1):
        monkeypatch.setattr(proposals, "ROUNDS_AT_ONCE", rounds)
        with as_on_a_gpu():
            train(parse_config(TINY), snapshot, tmp_path / str(rounds))
        states.append(final_state(tmp_path / str(rounds)))
    assert computed == [False] * 2 + [False, True] * 2
    assert states[0] == states[1]


def test_batch_norm_in_the_head_never_counts_a_place_without_a_region(snapshot, tmp_path, monkeypatch):
    """A step with empty places is done again, with what is there; for a while after it the host waits at once."""
    monkeypatch.setattr(build, "construct", with_norm_in_the_head)
    monkeypatch.setattr(heads, "WARY_BATCHES", 2)
    compute, choose, step = learner.compute_losses, heads.LossyRoIHeads._choose_samples, loop.train_step
    steps, computed = [], []

    def choose_fewer(*of):
        boxes, labels, truth = choose(*of)
        if steps[-1] in (1, 2, 5):
            labels[:, -3:] = IGNORED
        return boxes, labels, truth

    monkeypatch.setattr(heads.LossyRoIHeads, "_choose_samples", choose_fewer)
    monkeypatch.setattr(loop, "train_step", lambda run, *of: steps.append(run.step) or step(run, *of))
    monkeypatch.setattr(learner, "compute_losses", lambda *of: computed.append(steps[-1]) or compute(*of))
    for name in ("waits if it must", "always waits"):
        if name == "always waits":
            monkeypatch.setattr(heads.LossyRoIHeads, "must_ask", True)
        with as_on_a_gpu():
            train(parse_config({**TINY, "epochs": 4, "evaluate_every": 4}), snapshot, tmp_path / name)
    assert computed == [0, 1, 1, 2, 3, 4, 5, 5, 6, 7, *range(8)]
    assert final_state(tmp_path / "waits if it must") == final_state(tmp_path / "always waits")


def test_gradients_are_clipped_in_every_step_of_every_epoch(snapshot, tmp_path, monkeypatch):
    norms = []
    clip = torch.nn.utils.clip_grads_with_norm_
    monkeypatch.setattr(
        torch.nn.utils, "clip_grads_with_norm_", lambda p, norm, *of: norms.append(norm) or clip(p, norm, *of)
    )
    train(parse_config({**TINY, "epochs": 2, "clip_gradient_norm": 0.001}), snapshot, tmp_path / "run")
    assert norms == [0.001] * 4


def test_deterministic_and_benchmark_modes_are_never_both_on(snapshot, tmp_path):
    train(parse_config(TINY), snapshot, tmp_path / "run")
    assert not (torch.backends.cudnn.deterministic and torch.backends.cudnn.benchmark)


def test_run_without_validation_images_keeps_the_last_checkpoint_and_says_so(tmp_path):
    events = []
    snapshot = tiny_snapshot(tmp_path, num_valid=0)
    result = train(parse_config(TINY), snapshot, tmp_path / "run", RunContext(emit=events.append))
    assert (result.state, result.best) == ("done", {})
    assert any("no validation images" in event.text for event in of_kind(events, Log))
    assert [path.name for path in (tmp_path / "run").glob("*.pt")] == ["last.pt"]


def test_run_without_training_images_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="no images to train on"):
        train(parse_config(TINY), tiny_snapshot(tmp_path, num_train=0), tmp_path / "run")


@pytest.mark.parametrize("values", [{"optimizer": "sgd", "learning_rate": 0.01}, {"precision": "bfloat16"}])
def test_other_optimizers_and_precisions_train(snapshot, tmp_path, values):
    assert train(parse_config({**TINY, **values}), snapshot, tmp_path / "run").state == "done"


def test_resnet18_trains_end_to_end(snapshot, tmp_path, monkeypatch):
    monkeypatch.undo()
    result = train(parse_config(TINY), snapshot, tmp_path / "run")
    assert result.state == "done"
    assert load_checkpoint(tmp_path / "run" / "last.pt").tensors["backbone.body.conv1.weight"].shape == (64, 3, 7, 7)


def test_dataset_without_any_object_trains_without_a_score(tmp_path):
    """Only negatives: losses are finite, there is nothing to score on, and the run says done."""
    snapshot = tiny_snapshot(tmp_path, num_train=1, num_valid=1)
    result = train(parse_config(TINY), snapshot, tmp_path / "run")
    assert (result.state, result.best) == ("done", {})
