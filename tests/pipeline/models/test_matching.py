"""Matching and sampling of a whole batch against torchvision's, which go image by image."""

import pytest
import torch
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler, BoxCoder, Matcher
from torchvision.ops import box_iou

from app.pipeline.losses import IGNORED
from app.pipeline.models import matching
from app.pipeline.models.box_coder import BatchedBoxCoder
from app.pipeline.models.matching import box_overlaps, match, pad_targets, sample

CPU = torch.device("cpu")
OBJECTS = (5, 0, 1, 9)


def random_boxes(*shape: int) -> torch.Tensor:
    corners = torch.rand(*shape, 2) * 80
    return torch.cat([corners, corners + 4 + torch.rand(*shape, 2) * 40], dim=-1)


def random_targets():
    return [{"boxes": random_boxes(num), "labels": torch.randint(1, 5, (num,))} for num in OBJECTS]


def by_torchvision(boxes, targets, high, low, keeps_best):
    """Rows and kinds of an image, from torchvision's Matcher: -1 is background there, -2 between."""
    if not len(targets["boxes"]):
        return torch.zeros(len(boxes)).long(), torch.zeros(len(boxes)).long()
    found = Matcher(high, low, allow_low_quality_matches=keeps_best)(box_iou(targets["boxes"], boxes))
    return found.clamp(min=0), torch.where(found >= 0, 1, torch.where(found == -1, 0, IGNORED))


@pytest.mark.parametrize("max_cells", [2**25, 1], ids=["at once", "image by image"])
@pytest.mark.parametrize(
    ("high", "low", "keeps_best"), [(0.7, 0.3, True), (0.5, 0.5, False)], ids=["as in the RPN", "as in the box head"]
)
@pytest.mark.parametrize("is_shared", [True, False], ids=["the same boxes for all", "boxes of each image"])
def test_matches_are_torchvisions(monkeypatch, is_shared, high, low, keeps_best, max_cells):
    monkeypatch.setattr(matching, "MAX_CELLS", max_cells)
    torch.manual_seed(0)
    targets, boxes = random_targets(), random_boxes(1 if is_shared else len(OBJECTS), 300)
    rows, kinds = match(boxes, pad_targets(targets, CPU), high, low, keeps_best=keeps_best)
    for image, target in enumerate(targets):
        their_rows, their_kinds = by_torchvision(boxes[0 if is_shared else image], target, high, low, keeps_best)
        assert torch.equal(kinds[image], their_kinds)
        assert torch.equal(rows[image][their_kinds > 0], their_rows[their_kinds > 0])
    assert {1, 0} <= set(kinds.flatten().tolist())


def test_overlaps_are_torchvisions_to_the_bit():
    torch.manual_seed(0)
    boxes, others = random_boxes(2, 7), random_boxes(2, 50)
    assert torch.equal(box_overlaps(boxes, others), box_iou(boxes, others))


def test_targets_are_padded_with_the_background():
    torch.manual_seed(0)
    targets = random_targets()
    padded = pad_targets(targets, CPU)
    assert padded.boxes.shape == (4, 9, 4)
    for image, target in enumerate(targets):
        num = len(target["labels"])
        assert torch.equal(padded.boxes[image, :num], target["boxes"])
        assert padded.labels[image].tolist() == [*target["labels"].tolist(), *[0] * (9 - num)]
    assert pad_targets([{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0).long()}], CPU).labels.tolist() == [[0]]


LABELS = torch.tensor([[1] * 6 + [0] * 30 + [IGNORED] * 14, [2] * 40 + [0] * 10, [0] * 3 + [IGNORED] * 47, [0] * 50])


@pytest.mark.parametrize(("size", "fraction"), [(16, 0.5), (16, 0.25), (100, 0.5), (16, 1.0), (3, 0.1)])
def test_as_many_are_sampled_as_by_torchvision_none_twice_and_those_on_objects_first(size, fraction):
    torch.manual_seed(0)
    on_objects, others = BalancedPositiveNegativeSampler(size, fraction)(list(LABELS))
    rows, is_sampled = sample(LABELS, size, fraction)
    for image in range(len(LABELS)):
        own = rows[image][is_sampled[image]]
        labels = LABELS[image][own]
        assert int((labels > 0).sum()) == int(on_objects[image].sum())
        assert int((labels == 0).sum()) == int(others[image].sum())
        assert len(own) == len(set(own.tolist())) == len(labels)
        assert (labels > 0).tolist() == sorted((labels > 0).tolist(), reverse=True)


def test_candidates_are_drawn_uniformly():
    """Of 4,000 draws of 4 of 12 each must come up about 1,333 times: chi squared with 11 degrees, p = .001 at 31.3."""
    torch.manual_seed(0)
    labels = torch.tensor([[1] * 12 + [0] * 12]).expand(4000, -1)
    rows, is_sampled = sample(labels, 8, 0.5)
    assert is_sampled.all()
    for own in (rows[rows < 12], rows[rows >= 12] - 12):
        counts = torch.bincount(own, minlength=12).double()
        assert counts.sum() == 16_000
        # Without replacement counts vary less than independent ones: by 1 - 4 / 12.
        assert float(((counts - 16_000 / 12) ** 2 / (16_000 / 12)).sum()) / (1 - 4 / 12) * 11 / 12 < 31.3


def test_a_seed_gives_the_same_samples_and_another_one_others():
    def drawn(seed):
        torch.manual_seed(seed)
        return sample(LABELS, 16, 0.5)[0].tolist()

    assert drawn(3) == drawn(3) != drawn(4)


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0)])
def test_offsets_are_torchvisions(weights):
    torch.manual_seed(0)
    ours, theirs = BatchedBoxCoder(weights), BoxCoder(weights)
    starts, truth, codes = random_boxes(40), random_boxes(40), torch.randn(40, 12) * 3
    torch.testing.assert_close(ours.encode_single(truth, starts), theirs.encode_single(truth, starts))
    torch.testing.assert_close(ours.decode_single(codes, starts), theirs.decode_single(codes, starts))
    pairs = ours.encode_single(truth.view(4, 10, 4), starts.view(4, 10, 4))
    assert torch.equal(pairs.view(40, 4), ours.encode_single(truth, starts))
