"""The heads with losses of choice: torchvision's numbers by default, and no crash where nothing can be learned."""

from dataclasses import replace

import pytest
import torch
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead
from torchvision.models.detection.image_list import ImageList
from torchvision.ops.poolers import LevelMapper

from app.pipeline.config import BOX_LOSSES, parse_config
from app.pipeline.machine import Machine
from app.pipeline.models import build
from app.pipeline.models.build import build_model, constructor_arguments
from app.pipeline.models.forward import Batch, compute_losses, detect, normalize, place_model
from app.pipeline.models.heads import use_losses
from app.pipeline.models.matching import pad_targets
from app.pipeline.models.proposals import Proposals
from tests.pipeline.train.tiny_dataset import TINY, construct_tiny

CPU = Machine(torch.device("cpu"), torch.float32)
NAMES = ["loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg"]


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(build, "construct", construct_tiny)


def config_of(**values):
    return parse_config({**TINY, "max_detections": 20, **values})


def tiny_model(**values) -> FasterRCNN:
    torch.manual_seed(0)
    return build_model(config_of(**values), 2, [30, 10])


def batch_of(*boxes: list) -> Batch:
    """Images of noise, 64 x 64, with these boxes of class 2."""
    noise = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 255, (len(boxes), 64, 64, 3), dtype=torch.uint8, generator=noise)
    targets = [
        {"boxes": torch.tensor(own, dtype=torch.float32).reshape(-1, 4), "labels": torch.full((len(own),), 2)}
        for own in boxes
    ]
    return Batch(pixels, [(64, 64)] * len(boxes), targets, [f"{i}.png" for i in range(len(boxes))])


BOXES = ([[4, 4, 36, 30], [20, 30, 60, 62]], [[10, 8, 50, 40]])


def losses_and_gradients(model, batch):
    model.train()
    torch.manual_seed(7)
    losses = compute_losses(model, batch, CPU)
    return losses, gradients_of(model, losses)


def gradients_of(model, losses):
    sum(losses.values()).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def torchvision_twin(model, config):
    """torchvision's own detector with the same weights, and the same anchors for its four levels and the pooled one."""
    twin = construct_tiny("", constructor_arguments(config, 2))
    twin.load_state_dict(model.state_dict())
    twin.rpn.anchor_generator = model.rpn.anchor_generator
    twin.roi_heads.box_roi_pool.scales = [1 / 4, 1 / 8, 1 / 16, 1 / 32]
    twin.roi_heads.box_roi_pool.map_levels = LevelMapper(2, 5)
    return twin.train(model.training)


def through_torchvision(model, batch):
    """What torchvision's model answers, on the same pixels: its RPN and heads on normalized images."""
    images = normalize(batch.pixels, batch.sizes, CPU.device)
    features = model.backbone(images)
    proposals, rpn_losses = model.rpn(ImageList(images, batch.sizes), features, batch.targets or None)
    detections, roi_losses = model.roi_heads(features, proposals, batch.sizes, batch.targets or None)
    return {**rpn_losses, **roi_losses} if model.training else detections


@pytest.mark.parametrize("boxes", [BOXES, ([], BOXES[0], BOXES[1])], ids=["objects", "an image without objects"])
def test_by_default_losses_and_gradients_are_torchvisions(boxes):
    """All that may be sampled is sampled, so that chance has no part in it."""
    everything = config_of(rpn_batch_size=4096, roi_batch_size=4096)
    torch.manual_seed(0)
    ours = build_model(everything, 2).train()
    theirs = torchvision_twin(ours, everything)
    found, gradients = losses_and_gradients(ours, batch_of(*boxes))
    expected = through_torchvision(theirs, batch_of(*boxes))
    their_gradients = gradients_of(theirs, expected)
    assert list(found) == NAMES
    for name in NAMES:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-6, atol=1e-6)
    assert gradients.keys() == their_gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, their_gradients[name], rtol=1e-5, atol=1e-6)


def test_detections_are_torchvisions():
    ours = tiny_model().eval()
    batch = replace(batch_of([], []), targets=[])
    theirs = through_torchvision(torchvision_twin(ours, config_of()), batch)
    for found, expected in zip(detect(ours, batch, CPU), theirs, strict=True):
        assert len(found["boxes"]) > 10
        for name in ("boxes", "scores", "labels"):
            torch.testing.assert_close(found[name], expected[name])


def test_state_dict_keys_stay_torchvisions():
    values = {"rpn_box_loss": "ciou", "box_loss": "giou", "class_loss": "focal", "class_weights": "inverse_frequency"}
    theirs = construct_tiny("", constructor_arguments(config_of(), 2))
    assert tiny_model(**values).state_dict().keys() == theirs.state_dict().keys()


@pytest.mark.parametrize(("rpn", "head"), [("ciou", "smooth_l1"), ("smooth_l1", "ciou"), ("giou", "l1")])
def test_the_two_box_losses_are_chosen_separately(rpn, head):
    usual = losses_and_gradients(tiny_model(), batch_of(*BOXES))[0]
    changed = losses_and_gradients(tiny_model(rpn_box_loss=rpn, box_loss=head), batch_of(*BOXES))[0]
    differs = {name for name in NAMES if not torch.isclose(usual[name], changed[name])}
    chosen = {"loss_rpn_box_reg": rpn, "loss_box_reg": head}
    assert differs == {name for name, loss in chosen.items() if loss != "smooth_l1"}


def test_class_weights_and_focal_loss_change_the_class_loss_alone():
    usual = losses_and_gradients(tiny_model(), batch_of(*BOXES))[0]
    for values in ({"class_loss": "focal"}, {"class_weights": "inverse_frequency"}):
        changed = losses_and_gradients(tiny_model(**values), batch_of(*BOXES))[0]
        assert {name for name in NAMES if not torch.isclose(usual[name], changed[name])} == {"loss_classifier"}


def test_class_weights_come_from_the_counts_and_move_with_the_model():
    model = tiny_model(class_weights="inverse_frequency")
    assert model.roi_heads.class_weights.tolist() == pytest.approx([1, 40 / 60, 2])
    assert model.to(torch.float64).roi_heads.class_weights.dtype == torch.float64
    assert build_model(config_of(class_weights="inverse_frequency"), 2).roi_heads.class_weights is None  # to predict


@pytest.mark.parametrize("name", BOX_LOSSES)
def test_images_without_objects_train_with_every_loss(name):
    for boxes in ([[], []], [[], BOXES[0]]):
        model = tiny_model(rpn_box_loss=name, box_loss=name, class_loss="focal", class_weights="inverse_frequency")
        losses, gradients = losses_and_gradients(model, batch_of(*boxes))
        assert all(torch.isfinite(loss) for loss in losses.values())
        assert all(torch.isfinite(gradient).all() for gradient in gradients.values())
        if boxes == [[], []]:
            assert losses["loss_box_reg"] == losses["loss_rpn_box_reg"] == 0


@pytest.mark.parametrize("name", ["smooth_l1", "ciou"])
def test_a_region_of_size_zero_trains(name):
    model = place_model(tiny_model(box_loss=name), CPU).train()
    features = {key: level.requires_grad_() for key, level in features_of(model).items()}
    boxes = torch.tensor([[[5.0, 5, 5, 5], [0, 5, 64, 5], [4, 4, 36, 30]]])
    proposals = Proposals(boxes, torch.ones(1, 3, dtype=torch.bool), (64, 64), torch.ones(1, 3))
    targets = pad_targets(batch_of(BOXES[0]).targets, CPU.device)
    _, losses = model.roi_heads(features, proposals, [(64, 64)], targets)
    sum(losses.values()).backward()
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert all(torch.isfinite(level.grad).all() for level in features.values() if level.grad is not None)


def features_of(model):
    batch = batch_of([])
    images = batch.pixels.permute(0, 3, 1, 2).float() / 255
    return {key: level.detach() for key, level in model.backbone(images).items()}


NOTHING = Proposals(torch.zeros(1, 0, 4), torch.zeros(1, 0, dtype=torch.bool), (64, 64), torch.zeros(1, 0))


def test_no_proposal_left_and_no_object_either():
    model = place_model(tiny_model(), CPU)
    features, none = features_of(model), NOTHING
    _, losses = model.train().roi_heads(features, none, [(64, 64)], pad_targets(batch_of([]).targets, CPU.device))
    sum(losses.values()).backward()
    assert [loss.item() for loss in losses.values()] == [0, 0]
    detections, _ = model.eval().roi_heads(features, none, [(64, 64)])
    assert [len(detections[0][name]) for name in ("boxes", "scores", "labels")] == [0, 0, 0]
    assert detections[0]["boxes"].shape == (0, 4)


def test_nothing_to_pool_leaves_the_statistics_of_the_second_head_alone():
    """The mean of no region at all would be NaN, kept for good."""
    model = tiny_model()
    model.roi_heads.box_head = FastRCNNConvFCHead((16, 7, 7), [8], [32], norm_layer=torch.nn.BatchNorm2d)
    features = features_of(model)
    targets = pad_targets(batch_of([]).targets, CPU.device)
    _, losses = model.train().roi_heads(features, NOTHING, [(64, 64)], targets)
    sum(losses.values()).backward()
    assert all(torch.isfinite(buffer).all() for buffer in model.buffers())


def test_rpn_without_a_proposal_worth_keeping():
    """All boxes fall outside the image: nothing is left for the head, training and predicting go on."""
    model = tiny_model()
    model.rpn.head.bbox_pred.bias.data[0::4] = 1e6
    losses, gradients = losses_and_gradients(model, batch_of([], []))
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert all(torch.isfinite(gradient).all() for gradient in gradients.values())
    assert [len(found["boxes"]) for found in detect(model.eval(), batch_of([], []), CPU)] == [0, 0]


def test_samples_thresholds_and_fractions_reach_the_heads():
    model = tiny_model(
        rpn_batch_size=24,
        rpn_positive_fraction=0.3,
        rpn_nms_threshold=0.6,
        roi_batch_size=40,
        roi_positive_fraction=0.4,
        nms_threshold=0.45,
        score_threshold=0.05,
        max_detections=33,
    )
    rpn, heads = model.rpn, model.roi_heads
    assert (rpn.fg_bg_sampler.batch_size_per_image, rpn.fg_bg_sampler.positive_fraction) == (24, 0.3)
    assert (heads.fg_bg_sampler.batch_size_per_image, heads.fg_bg_sampler.positive_fraction) == (40, 0.4)
    assert (rpn.nms_thresh, heads.nms_thresh, heads.score_thresh, heads.detections_per_img) == (0.6, 0.45, 0.05, 33)


def test_the_heads_of_torchvision_are_kept_with_their_weights():
    torch.manual_seed(0)
    made = construct_tiny("", constructor_arguments(config_of(), 2))
    before = {name: value.clone() for name, value in made.state_dict().items()}
    after = use_losses(made, config_of(box_loss="ciou"), []).state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
