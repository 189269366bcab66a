"""Fitting weights into a model: what matches is loaded, what cannot is remade or refused, and all of it is told.

Only layers that depend on the classes, the anchors, the pooler's size or the channels may differ: these are remade,
each with its reason. What else a file lacks starts at random; what it has too much is left out.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN

from app.pipeline.config import RunConfig
from app.pipeline.models.backbones import find_stem, stem_weights

PREDICTOR = tuple(
    f"roi_heads.box_predictor.{layer}.{kind}" for layer in ("cls_score", "bbox_pred") for kind in ("weight", "bias")
)
RPN_OUTPUTS = tuple(f"rpn.head.{layer}.{kind}" for layer in ("cls_logits", "bbox_pred") for kind in ("weight", "bias"))
BODY = "backbone.body."
_PARTS = ("backbone.", "rpn.", "roi_heads.")
_ANCHOR_OPTIONS = ("anchors", "anchor_sizes", "anchor_ratios", "anchor_shapes")
_NAMED = 3  # tensors that a message names


class WeightsError(ValueError):
    """A weights file that cannot be used; the message says why and names the file."""


class WeightsUnavailable(WeightsError):
    """Pretrained weights are neither in the cache nor could be downloaded."""


@dataclass(frozen=True)
class WeightsFile:
    """Tensors by name, what else the file holds, and the class names if it tells them."""

    path: Path
    tensors: dict[str, Tensor]
    extras: dict[str, object]
    class_names: tuple[str, ...] | None = None

    def config_values(self) -> dict[str, Any]:
        """The options of the run that it comes from, as they were written; {} when it tells none."""
        text = self.extras.get("config_json")
        try:
            values = json.loads(text) if isinstance(text, str) else {}
        except ValueError:
            return {}
        return values if isinstance(values, dict) else {}


def fit_weights(
    model: FasterRCNN, weights: WeightsFile, class_names: tuple[str, ...], config: RunConfig | None = None
) -> list[str]:
    """Copy ``weights`` into ``model``; returns notes for the log.

    A backbone alone (a classification network) fills the backbone. Raises WeightsError naming the first tensor of the
    backbone that is missing, or any that has another shape, and when nothing matches.
    """
    fit = _Fit(model, weights, config)
    fit.remake_stem()
    fit.remake_anchors()
    fit.remake_pooled_layer()
    fit.remake_classes(class_names)
    fit.check()
    model.load_state_dict({name: fit.tensors.get(name, value) for name, value in fit.own.items()})
    return fit.report()


@dataclass
class _Fit:
    model: FasterRCNN
    weights: WeightsFile
    config: RunConfig | None
    tensors: dict[str, Tensor] = field(init=False)
    own: dict[str, Tensor] = field(init=False)
    is_backbone: bool = field(init=False)
    notes: list[str] = field(default_factory=list)
    remade: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.own = self.model.state_dict()
        self.tensors = dict(self.weights.tensors)
        self.is_backbone = not any(name.startswith(_PARTS) for name in self.tensors) or all(
            name.startswith(BODY) for name in self.tensors
        )
        if self.is_backbone:
            self.tensors = _as_backbone(self.tensors, self.own)

    def remake_stem(self) -> None:
        """Bring the first convolution to the model's channels."""
        name = f"{BODY}{find_stem(self.model.backbone.body)[0]}.weight"
        theirs, own = self.tensors.get(name), self.own[name]
        if theirs is None or theirs.dim() != own.dim() or theirs.shape[1] == own.shape[1]:
            return
        way = self.config.gray_stem if self.config else "mean"
        fitted = stem_weights(theirs, own.shape[1], way)
        if fitted is not None and fitted.shape == own.shape:
            self.tensors[name] = fitted.contiguous()
            how = {"mean": "the mean", "repeat": "the sum"}[way] if own.shape[1] == 1 else "equal shares"
            start = f"{how} of its weights"
        else:
            self._drop([name])
            start = "random weights"
        self.notes.append(
            f"It was trained on images of {_channels(theirs)}, this model sees {_channels(own)}: "
            f"the first convolution starts with {start}."
        )

    def remake_anchors(self) -> None:
        """Remake the RPN's outputs for another number of anchors at each position."""
        theirs, ours = self._rows(RPN_OUTPUTS[0]), self.own[RPN_OUTPUTS[0]].shape[0]
        if theirs is None:
            return
        rows = {"cls_logits": theirs, "bbox_pred": 4 * theirs}
        if theirs != ours and all(self._rows(name) == rows[name.split(".")[2]] for name in RPN_OUTPUTS):
            self._drop(RPN_OUTPUTS)
            self.notes.append(
                f"Its RPN has {theirs} anchors at each position, this model {ours}: its last layers start at random."
            )
        elif theirs == ours and self._has_other_anchors():
            self.notes.append("Its anchors had other shapes, as many at each position: its RPN is kept.")

    def _has_other_anchors(self) -> bool:
        theirs = self.weights.config_values()
        if not theirs or self.config is None:
            return False
        ours = self.config.model_dump(mode="json")
        if theirs.get("anchors", "stock") == ours["anchors"] == "stock":
            return False
        return any(theirs.get(name) != ours[name] for name in _ANCHOR_OPTIONS)

    def remake_pooled_layer(self) -> None:
        """Remake the first linear layer of the box head for another size of the pooled regions."""
        layers = self.model.roi_heads.box_head.named_modules()
        first = next((name for name, layer in layers if isinstance(layer, nn.Linear)), None)
        key = f"roi_heads.box_head.{first}"
        theirs, own = self.tensors.get(f"{key}.weight"), self.own.get(f"{key}.weight")
        if theirs is None or own is None or theirs.dim() != 2 or theirs.shape[0] != own.shape[0]:
            return
        channels = self.model.backbone.out_channels
        sizes = [math.isqrt(shape[1] // channels) for shape in (theirs.shape, own.shape)]
        if theirs.shape[1] != own.shape[1] and theirs.shape[1] == channels * sizes[0] ** 2:
            self._drop([f"{key}.weight", f"{key}.bias"])
            self.notes.append(
                f"Its pooler gives {sizes[0]} x {sizes[0]} bins, this model's {sizes[1]} x {sizes[1]}: "
                "the first layer of the box head starts at random."
            )

    def remake_classes(self, names: tuple[str, ...]) -> None:
        """Remake the head's last layers when it speaks of other classes: by name if they are told, else by number."""
        theirs, shapes = self.weights.class_names, {name: self._rows(name) for name in PREDICTOR}
        if all(rows is None for rows in shapes.values()):
            return
        is_other = theirs is not None and theirs != names
        if is_other or any(rows not in (None, self.own[name].shape[0]) for name, rows in shapes.items()):
            self._drop(PREDICTOR)
            self.notes.append(f"Its classes are not these {len(names)}: the last layers of the head start at random.")

    def check(self) -> None:
        """Refuse what would train wrongly without a word: half a backbone, other shapes, other norm layers."""
        matched = self._matched()
        own_body = [name for name in self.own if name.startswith(BODY)]
        if any(name.startswith(BODY) for name in self.tensors) or self.is_backbone:
            missing = [name for name in own_body if name not in self.tensors and name not in self.remade]
            missing = [name for name in missing if not name.endswith("num_batches_tracked")]
            if missing:
                raise self._refused(f"it has no {missing[0]}")
        for name, value in self.tensors.items():
            if name in self.own and value.shape != self.own[name].shape:
                raise self._refused(f"{name} must have shape {tuple(self.own[name].shape)}, found {tuple(value.shape)}")
        has_statistics = any(name.startswith(BODY) and name.endswith("running_mean") for name in self._unused())
        if has_statistics:
            raise self._refused(
                "it has batch norm, and norm 'group' makes that group norm; choose norm 'auto', or else"
            )
        if not matched:
            raise self._refused("no tensor of it has a name that the model has")

    def report(self) -> list[str]:
        """How much matched, what starts at random and what was left out, with the first names of each."""
        matched, total = self._matched(), [name for name in self.own if not name.endswith("num_batches_tracked")]
        what = " (backbone only)" if self.is_backbone else ""
        head = f"Started from {self.weights.path.name}{what}: {len(matched)} of the model's {len(total)} tensors match."
        random = [name for name in total if name not in self.tensors]
        unused = self._unused()
        lines = [head, *self.notes]
        if random:
            lines.append(f"{len(random)} tensors start at random: {_named(random)}.")
        if unused:
            lines.append(f"{len(unused)} tensors of the file are not used: {_named(unused)}.")
        return lines

    def _matched(self) -> list[str]:
        return [name for name in self.own if name in self.tensors and not name.endswith("num_batches_tracked")]

    def _unused(self) -> list[str]:
        return [name for name in self.tensors if name not in self.own and not name.endswith("num_batches_tracked")]

    def _rows(self, name: str) -> int | None:
        return self.tensors[name].shape[0] if name in self.tensors and self.tensors[name].dim() else None

    def _drop(self, names: Iterable[str]) -> None:
        for name in names:
            self.tensors.pop(name, None)
            self.remade.add(name)

    def _refused(self, reason: str) -> WeightsError:
        model = self.weights.config_values().get("model")
        advice = f"Choose model {model}, which it is of" if model else "Choose the model it is of"
        return WeightsError(f"{self.weights.path.name} does not fit the chosen model: {reason}. {advice}")


def _as_backbone(tensors: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names of a classification network to those of the detector's backbone; its classifier is left out.

    timm's extractors write the first dot of some names as an underscore (layers.0 and layers_0).
    """
    by_flat_name = {name.removeprefix(BODY).replace(".", "_"): name for name in own if name.startswith(BODY)}
    found = {}
    for name, value in tensors.items():
        flat = name.removeprefix(BODY).removeprefix("features.").replace(".", "_")
        if flat in by_flat_name:
            found[by_flat_name[flat]] = value
    return found


def _channels(weights: Tensor) -> str:
    return "1 channel" if weights.shape[1] == 1 else f"{weights.shape[1]} channels"


def _named(names: list[str]) -> str:
    more = ", …" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
