"""torchvision's RPN and box head with losses of choice, computed for a whole batch at once.

Subclasses: nothing is patched, and state-dict keys stay torchvision's. With the default losses the four losses are
torchvision's own numbers for the same samples. B images, A anchors, P proposals, S samples of an image, R regions in
all, K classes.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, concat_box_prediction_layers

from app.pipeline.config import RunConfig
from app.pipeline.losses import (
    IGNORED,
    BoxLoss,
    ClassLoss,
    box_loss,
    class_loss,
    inverse_frequency_weights,
    sum_where,
)
from app.pipeline.models.box_coder import BatchedBoxCoder
from app.pipeline.models.matching import PaddedTargets, match, pick, sample, upload
from app.pipeline.models.proposals import Limits, Proposals, select_proposals
from app.pipeline.models.roi_pool import BagRoIAlign

WARY_BATCHES = 100  # a head with batch norm asks in so many batches after one with empty places


class LossyRPN(RegionProposalNetwork):
    """torchvision's region proposal network with a box loss of choice; ``arguments`` are those of torchvision."""

    def __init__(self, *arguments: object, box_loss: BoxLoss, **named: object) -> None:
        super().__init__(*arguments, **named)
        self.box_loss = box_loss
        self.box_coder = BatchedBoxCoder(self.box_coder.weights)

    def forward(
        self,
        images: ImageList,
        features: dict[str, Tensor],
        targets: PaddedTargets | None = None,
        waits: bool = True,
    ) -> tuple[Proposals, dict[str, Tensor]]:
        """Proposals within each image (see :func:`select_proposals` for ``waits``), and in training the two losses."""
        maps = list(features.values())
        objectness, offsets = self.head(maps)
        anchors = self.anchor_generator(images, maps)[0]
        num_per_level = [level[0].numel() for level in objectness]
        scores, offsets = concat_box_prediction_layers(objectness, offsets)
        scores, offsets = scores.view(-1, len(anchors)), offsets.view(-1, len(anchors), 4)
        proposals = self._select(scores.detach(), offsets.detach(), anchors, num_per_level, images, waits)
        if not self.training:
            return proposals, {}
        if targets is None:
            raise ValueError("the RPN needs targets in training mode, got None")
        return proposals, self._losses(scores, offsets, anchors, targets)

    def _select(
        self,
        scores: Tensor,
        offsets: Tensor,
        anchors: Tensor,
        num_per_level: Sequence[int],
        images: ImageList,
        waits: bool,
    ) -> Proposals:
        """They are the starting boxes of the second stage: no gradient goes back through them."""
        frames = upload(torch.tensor(images.image_sizes, dtype=torch.float32).flip(1), scores.device)
        limits = Limits(self.pre_nms_top_n(), self.post_nms_top_n(), self.nms_thresh, self.score_thresh, self.min_size)
        canvas = (images.tensors.shape[-2], images.tensors.shape[-1])
        return select_proposals(scores, offsets, anchors, num_per_level, frames, self.box_coder, limits, canvas, waits)

    def _losses(self, scores: Tensor, offsets: Tensor, anchors: Tensor, targets: PaddedTargets) -> dict[str, Tensor]:
        """Both divided by the number of sampled anchors, as in torchvision; 0 where none could be sampled."""
        thresholds = (self.proposal_matcher.high_threshold, self.proposal_matcher.low_threshold)
        matches, labels = match(anchors[None], targets, *thresholds, keeps_best=True)
        rows, is_sampled = sample(labels, self.fg_bg_sampler.batch_size_per_image, self.fg_bg_sampler.positive_fraction)
        wanted = pick(labels, rows)
        truth = pick(targets.boxes, pick(matches, rows))
        loss_boxes = sum_where(
            (is_sampled & (wanted > 0)).flatten(),
            self.box_loss,
            pick(offsets, rows).flatten(0, 1),
            anchors[rows].flatten(0, 1),
            truth.flatten(0, 1),
            self.box_coder,
        )
        counted = is_sampled.to(scores.dtype)
        loss_scores = F.binary_cross_entropy_with_logits(
            pick(scores, rows), wanted.to(scores.dtype), weight=counted, reduction="sum"
        )
        num = counted.sum().clamp(min=1)
        return {"loss_objectness": loss_scores / num, "loss_rpn_box_reg": loss_boxes / num}


class LossyRoIHeads(RoIHeads):
    """torchvision's box head with losses of choice; ``arguments`` are those of torchvision, boxes only.

    ``class_weights``, float32 [K + 1] or None, moves with the module and stays out of its state dict.
    """

    def __init__(
        self,
        *arguments: object,
        box_loss: BoxLoss,
        class_loss: ClassLoss,
        class_weights: Tensor | None = None,
        **named: object,
    ) -> None:
        super().__init__(*arguments, **named)
        self.box_loss = box_loss
        self.class_loss = class_loss
        self.register_buffer("class_weights", class_weights, persistent=False)
        self.box_coder = BatchedBoxCoder(self.box_coder.weights)
        self.box_roi_pool = BagRoIAlign(self.box_roi_pool)
        self._has_batch_norm = any(isinstance(layer, _BatchNorm) for layer in self.box_head.modules())
        self._wary_batches = 0

    @property
    def must_ask(self) -> bool:
        """Whether to wait for proposals and their number, as places without a region are likely to spoil batch norm."""
        return self._wary_batches > 0

    def forward(
        self,
        features: dict[str, Tensor],
        proposals: Proposals,
        image_shapes: list[tuple[int, int]],
        targets: PaddedTargets | None = None,
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """Detections (boxes, labels, scores) of each image in eval mode, the two losses in training.

        Losses are NaN where proposals are not settled, or where batch norm has counted empty places as regions.
        """
        if self.training:
            if targets is None:
                raise ValueError("the box head needs targets in training mode, got None")
            return [], self._train(features, proposals, targets)
        of_images = proposals.of_images()
        images = [boxes.new_full((len(boxes),), index, dtype=torch.int64) for index, boxes in enumerate(of_images)]
        logits, offsets = self._predict(features, torch.cat(of_images), torch.cat(images), proposals.canvas)
        found = self.postprocess_detections(logits, offsets, of_images, image_shapes)
        names = ("boxes", "scores", "labels")
        return [dict(zip(names, one, strict=True)) for one in zip(*found, strict=True)], {}

    def _predict(
        self, features: dict[str, Tensor], boxes: Tensor, images: Tensor, canvas: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Logits [R, K + 1] and offsets [R, 4 (K + 1)] of regions [R, 4]; R may be 0, with either head."""
        return self.box_predictor(self.box_head(self.box_roi_pool(features, boxes, images, canvas)))

    def _train(self, features: dict[str, Tensor], proposals: Proposals, targets: PaddedTargets) -> dict[str, Tensor]:
        boxes, labels, truth = (part.flatten(0, 1) for part in self._choose_samples(proposals, targets))
        num_images = len(targets.boxes)
        images = torch.arange(num_images, device=boxes.device)[:, None].expand(-1, len(boxes) // num_images).flatten()
        is_used, is_right = labels != IGNORED, proposals.is_settled
        if asking_is_free(boxes.device) or (self._has_batch_norm and is_right is None):
            used = torch.where(is_used)[0]
            self._wary_batches = WARY_BATCHES if len(used) < len(boxes) else max(0, self._wary_batches - 1)
            boxes, labels, truth, images = boxes[used], labels[used], truth[used], images[used]
        elif self._has_batch_norm:
            is_right = is_right & is_used.all()
        logits, offsets = self._predict(features, boxes, images, proposals.canvas)
        losses = self._losses(logits, offsets, boxes, labels, truth)
        if is_right is None:
            return losses
        return {name: torch.where(is_right, loss, torch.nan) for name, loss in losses.items()}

    def _choose_samples(self, proposals: Proposals, targets: PaddedTargets) -> tuple[Tensor, Tensor, Tensor]:
        """Regions [B, S, 4], their labels [B, S] (IGNORED where there are not as many) and their objects [B, S, 4].

        Objects themselves are among the proposals, so that the head sees some from the first step on.
        """
        boxes = torch.cat([proposals.boxes, targets.boxes], dim=1)
        is_box = torch.cat([proposals.is_kept, targets.labels > 0], dim=1)
        thresholds = (self.proposal_matcher.high_threshold, self.proposal_matcher.low_threshold)
        matches, kinds = match(boxes, targets, *thresholds)
        labels = torch.where(kinds > 0, pick(targets.labels, matches), kinds).masked_fill(~is_box, IGNORED)
        rows, is_sampled = sample(labels, self.fg_bg_sampler.batch_size_per_image, self.fg_bg_sampler.positive_fraction)
        truth = pick(targets.boxes, pick(matches, rows))
        return pick(boxes, rows), pick(labels, rows).masked_fill(~is_sampled, IGNORED), truth

    def _losses(
        self, logits: Tensor, offsets: Tensor, boxes: Tensor, labels: Tensor, truth: Tensor
    ) -> dict[str, Tensor]:
        """Boxes divided by the number of sampled regions, as in torchvision; both 0 where there is none."""
        of_label = labels.clamp(min=0)[:, None, None].expand(-1, 1, 4)
        chosen = offsets.view(len(labels), logits.shape[1], 4).gather(1, of_label)[:, 0]
        loss_boxes = sum_where(labels > 0, self.box_loss, chosen, boxes, truth, self.box_coder)
        num = (labels != IGNORED).sum().clamp(min=1)
        loss_classes = self.class_loss(logits, labels, self.class_weights)
        return {"loss_classifier": loss_classes, "loss_box_reg": loss_boxes / num}


def asking_is_free(device: torch.device) -> bool:
    """Whether the host knows at once how many of something there are."""
    return device.type == "cpu"


def use_losses(model: FasterRCNN, config: RunConfig, class_counts: Sequence[int] = ()) -> FasterRCNN:
    """Let a newly built detector learn by the losses of ``config``; its parts and their weights stay. Returns it.

    class_counts, the training boxes of each class, are needed for class weights only: without them, as when predicting,
    all classes weigh the same.
    """
    model.rpn = _rpn_like(model.rpn, box_loss(config.rpn_box_loss))
    is_weighted = config.class_weights == "inverse_frequency" and len(class_counts) > 0
    model.roi_heads = _roi_heads_like(
        model.roi_heads,
        box_loss=box_loss(config.box_loss),
        class_loss=class_loss(config.class_loss, config.focal_gamma),
        class_weights=inverse_frequency_weights(class_counts) if is_weighted else None,
    )
    return model


def _rpn_like(made: RegionProposalNetwork, loss: BoxLoss) -> LossyRPN:
    return LossyRPN(
        made.anchor_generator,
        made.head,
        made.proposal_matcher.high_threshold,
        made.proposal_matcher.low_threshold,
        made.fg_bg_sampler.batch_size_per_image,
        made.fg_bg_sampler.positive_fraction,
        made._pre_nms_top_n,
        made._post_nms_top_n,
        made.nms_thresh,
        made.score_thresh,
        box_loss=loss,
    )


def _roi_heads_like(made: RoIHeads, **losses: object) -> LossyRoIHeads:
    return LossyRoIHeads(
        made.box_roi_pool,
        made.box_head,
        made.box_predictor,
        made.proposal_matcher.high_threshold,
        made.proposal_matcher.low_threshold,
        made.fg_bg_sampler.batch_size_per_image,
        made.fg_bg_sampler.positive_fraction,
        made.box_coder.weights,
        made.score_thresh,
        made.nms_thresh,
        made.detections_per_img,
        **losses,
    )
