"""torchvision's RPN and RoI heads with losses of choice, and a detector composed of them.

Subclasses: nothing is patched, and state-dict keys stay torchvision's. With the default losses the four losses are
torchvision's own numbers. B images, P sampled boxes on objects, K classes.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, concat_box_prediction_layers

from app.pipeline.config import RunConfig
from app.pipeline.losses import BoxLoss, ClassLoss, box_loss, class_loss, inverse_frequency_weights


class LossyRPN(RegionProposalNetwork):
    """torchvision's region proposal network with a box loss of choice; ``arguments`` are those of torchvision."""

    def __init__(self, *arguments: object, box_loss: BoxLoss, **named: object) -> None:
        super().__init__(*arguments, **named)
        self.box_loss = box_loss

    def forward(
        self, images: ImageList, features: dict[str, Tensor], targets: list[dict[str, Tensor]] | None = None
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Proposals [N_i, 4] of each image (clipped, best first), and in training the two losses."""
        maps = list(features.values())
        objectness, offsets = self.head(maps)
        anchors = self.anchor_generator(images, maps)
        num_per_level = [level[0].numel() for level in objectness]
        scores, offsets = concat_box_prediction_layers(objectness, offsets)
        # Proposals are the starting boxes of the second stage: no gradient goes back through them.
        decoded = self.box_coder.decode(offsets.detach(), anchors).view(len(anchors), -1, 4)
        proposals, _ = self.filter_proposals(decoded, scores, images.image_sizes, num_per_level)
        if not self.training:
            return proposals, {}
        if targets is None:
            raise ValueError("the RPN needs targets in training mode, got None")
        return proposals, self._losses(scores.flatten(), offsets, anchors, targets)

    def _losses(
        self, scores: Tensor, offsets: Tensor, anchors: list[Tensor], targets: list[dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Both divided by the number of sampled anchors, as in torchvision; 0 where none could be sampled."""
        labels, truth = self.assign_targets_to_anchors(anchors, targets)
        on_objects, others = (torch.where(torch.cat(masks))[0] for masks in self.fg_bg_sampler(labels))
        sampled = torch.cat([on_objects, others])
        loss_boxes = self.box_loss(
            offsets[on_objects], torch.cat(anchors)[on_objects], torch.cat(truth)[on_objects], self.box_coder
        )
        wanted = torch.cat(labels)[sampled]
        loss_scores = F.binary_cross_entropy_with_logits(scores[sampled], wanted, reduction="sum")
        num = max(1, len(sampled))
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

    def forward(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
        targets: list[dict[str, Tensor]] | None = None,
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """Detections (boxes, labels, scores) of each image in eval mode, the two losses in training."""
        if self.training:
            proposals, matches, labels, _ = self.select_training_samples(proposals, targets)
        # All of these take zero regions: tested with both poolers and both heads.
        logits, offsets = self.box_predictor(self.box_head(self.box_roi_pool(features, proposals, image_shapes)))
        if self.training:
            return [], self._losses(logits, offsets, proposals, labels, matches, targets)
        found = self.postprocess_detections(logits, offsets, proposals, image_shapes)
        names = ("boxes", "scores", "labels")
        return [dict(zip(names, one, strict=True)) for one in zip(*found, strict=True)], {}

    def _losses(
        self,
        logits: Tensor,
        offsets: Tensor,
        proposals: list[Tensor],
        labels: list[Tensor],
        matches: list[Tensor],
        targets: list[dict[str, Tensor]],
    ) -> dict[str, Tensor]:
        """Boxes divided by the number of sampled regions, as in torchvision; both 0 where there is none."""
        wanted = torch.cat(labels)
        if not len(wanted):
            nothing = logits.sum() + offsets.sum()
            return {"loss_classifier": nothing, "loss_box_reg": nothing}
        on_objects = torch.where(wanted > 0)[0]
        truth = [_rows(target["boxes"], rows) for target, rows in zip(targets, matches, strict=True)]
        starts = torch.cat(proposals)
        chosen = offsets.view(len(wanted), -1, 4)[on_objects, wanted[on_objects]]
        loss_boxes = self.box_loss(
            chosen, starts[on_objects], torch.cat(truth).to(starts.dtype)[on_objects], self.box_coder
        )
        loss_classes = self.class_loss(logits, wanted, self.class_weights)
        return {"loss_classifier": loss_classes, "loss_box_reg": loss_boxes / len(wanted)}


def _rows(boxes: Tensor, rows: Tensor) -> Tensor:
    """``boxes[rows]``; zeros for an image without objects, whose regions are matched to its missing first box."""
    return boxes[rows] if len(boxes) else boxes.new_zeros((len(rows), 4))


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
