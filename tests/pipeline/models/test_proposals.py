"""Proposals of a whole batch against torchvision's, and NMS of all images at once against its NMS."""

import pytest
import torch
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.ops import nms

from app.pipeline.models import proposals
from app.pipeline.models.box_coder import BatchedBoxCoder
from app.pipeline.models.proposals import Limits, select_proposals, suppress_in_turn, suppress_together

CODER = BatchedBoxCoder((1.0, 1.0, 1.0, 1.0))
LEVELS = (400, 100, 25)


def random_anchors(count: int, spread: float = 200) -> torch.Tensor:
    corners = torch.rand(count, 2) * spread
    return torch.cat([corners, corners + 10 + 60 * torch.rand(count, 2)], 1)


def in_turn(boxes, counts, threshold, waits=True):
    return suppress_in_turn(boxes, counts, threshold), None


@pytest.mark.parametrize("suppress", [in_turn, suppress_together])
@pytest.mark.parametrize("min_score", [0.0, 0.5])
def test_proposals_are_torchvisions(monkeypatch, suppress, min_score):
    monkeypatch.setattr(proposals, "suppress", suppress)
    torch.manual_seed(0)
    sizes, num_anchors = [(200, 240), (120, 240), (64, 64)], sum(LEVELS)
    anchors, scores = random_anchors(num_anchors), torch.randn(3, num_anchors)
    offsets = torch.randn(3, num_anchors, 4) * 0.3
    limits = {"training": 300}, {"training": 60}
    theirs = RegionProposalNetwork(None, None, 0.7, 0.3, 256, 0.5, *limits, 0.7, min_score).train()
    decoded = CODER.decode(offsets.view(-1, 4), [anchors] * 3).view(3, num_anchors, 4)
    expected, _ = theirs.filter_proposals(decoded, scores, sizes, list(LEVELS))
    frames = torch.tensor([[width, height] for height, width in sizes], dtype=torch.float32)
    ours = select_proposals(
        scores, offsets, anchors, LEVELS, frames, CODER, Limits(300, 60, 0.7, min_score, theirs.min_size), (200, 240)
    )
    assert ours.boxes.shape == (3, 60, 4)
    assert [len(own) for own in ours.of_images()] == [len(own) for own in expected]
    assert len(expected[0]) == 60
    assert len(expected[2]) < 60  # most of its boxes lie outside
    for own, other in zip(ours.of_images(), expected, strict=True):
        torch.testing.assert_close(own, other)


CASES = {
    "boxes apart": 4000.0,
    "a crowd": 60.0,
    "all on one spot": 1.0,
}


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("spread", CASES.values(), ids=CASES.keys())
def test_compiled_nms_is_torchvisions(spread, threshold):
    torch.manual_seed(0)
    boxes = torch.stack([random_anchors(sum(LEVELS), spread).round() for _ in range(3)])  # many overlap exactly alike
    boxes[1, ::3] = 0
    boxes[2, 5, 2] = float("nan")
    expected = torch.zeros(boxes.shape[:2], dtype=torch.bool)
    for own, kept in zip(boxes, expected, strict=True):
        for level, of_level in zip(own.split(LEVELS), kept.split(LEVELS), strict=True):
            of_level[nms(level, torch.arange(len(level), 0, -1).float(), threshold)] = True
    assert torch.equal(suppress_in_turn(boxes, LEVELS, threshold), expected)


@pytest.mark.parametrize("threshold", [0.3, 0.6, 0.7])
def test_overlap_at_the_threshold_itself_is_judged_as_by_torchvision(threshold):
    """As float32, .3 and .6 lie above what was asked for and .7 below: an overlap of that very value shows it."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10 * threshold]])
    kept = suppress_in_turn(boxes[None], [2], threshold)[0]
    assert kept.sum() == len(nms(boxes, torch.tensor([2.0, 1.0]), threshold))


@pytest.mark.parametrize("threshold", [0.3, 0.7])
@pytest.mark.parametrize("spread", CASES.values(), ids=CASES.keys())
def test_nms_at_once_is_nms_in_turn(monkeypatch, spread, threshold):
    monkeypatch.setattr(proposals, "ROUNDS_AT_ONCE", 2)  # so that it has to look more than once
    monkeypatch.setattr(proposals, "ROWS_AT_ONCE", 64)
    torch.manual_seed(0)
    boxes = torch.stack([random_anchors(sum(LEVELS), spread) for _ in range(3)])
    boxes[1, ::3] = 0  # what is too small, or empty
    expected, (found, _) = suppress_in_turn(boxes, LEVELS, threshold), suppress_together(boxes, LEVELS, threshold)
    assert torch.equal(expected, found)
    assert expected.any()


@pytest.mark.parametrize(("rounds", "is_settled"), [(32, False), (99, False), (101, True)])
def test_a_chain_of_boxes_that_hang_on_each_other_is_settled(monkeypatch, rounds, is_settled):
    """Each box overlaps the next only: greedy NMS keeps every other one, known only from the first on."""
    monkeypatch.setattr(proposals, "ROUNDS_AT_ONCE", rounds)
    starts = torch.arange(100.0) * 5
    boxes = torch.stack([starts, torch.zeros(100), starts + 10, torch.full((100,), 10.0)], dim=1)[None]
    every_other = [[index % 2 == 0 for index in range(100)]]
    assert suppress_together(boxes, [100], 0.3)[0].tolist() == every_other
    found, told = suppress_together(boxes, [100], 0.3, waits=False)
    assert told.item() == is_settled
    assert (found.tolist() == every_other) or not is_settled
