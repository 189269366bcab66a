"""The lines of Python that load exported weights elsewhere, for each detector. Imports no torch."""

from app.pipeline.config import RunConfig
from app.pipeline.models.catalogue import Detector, find_detector

FACTS_NAME = "classes.json"
_LOADERS = {
    "pth": 'torch.load("model.pth", weights_only=True)',
    "safetensors": 'safetensors.torch.load_file("model.safetensors")',
}
_BY_NAME = (
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2",
)
_CHANNELS = {"resnet18": 64, "resnet34": 64}  # of the finest map; the deeper ones have 256


def formats() -> tuple[str, ...]:
    """The kinds of weights files."""
    return tuple(_LOADERS)


def needed_libraries(config: RunConfig) -> str:
    """What the lines need, in words."""
    if _torchvision_detector(config):
        return "torchvision alone"
    return "Anchorage installed (its backbone is timm's, which torchvision does not have)"


def loading_recipe(config: RunConfig, format: str = "pth") -> str:
    """The lines that load an export of a run with ``config``, to be run in the folder of the export.

    Five for the detectors as torchvision makes them; more where anchors, pooler, channels, norm layers or the way of
    resizing are other ones. The model takes images as float tensors [3, H, W] of RGB, or [1, H, W] of gray, in 0..1 and
    resizes them itself, as it was trained: the arguments in the file say how.
    """
    detector = _torchvision_detector(config)
    if detector is None:
        build = _with_anchorage()
    elif _is_plain(config):
        build = [f"model = {_plain_model(detector)}"]
    else:
        build = _composed_model(detector, config)
    package = "torchvision" if detector else ""
    modules = [*(["safetensors.torch"] if format == "safetensors" else []), *([package] if package else [])]
    lines = [
        f"import {', '.join(['json', 'torch', *modules])}",
        f'facts = json.load(open("{FACTS_NAME}", encoding="utf-8"))',
        *build,
        f"model.load_state_dict({_LOADERS[format]})",
        "model.eval()",
    ]
    if config.resize == "as_is":
        lines.append("model.transform.resize = lambda image, target=None: (image, target)")
    if config.resize in ("letterbox", "as_is"):
        # torchvision guesses the scales of the maps once, from the first image without its padding: one that fills half
        # of its canvas would double them. A square one without padding tells them as they are.
        lines.append(f"model([torch.zeros({config.channels}, {config.image_size}, {config.image_size})])")
    return "\n".join(lines)


def _torchvision_detector(config: RunConfig) -> Detector | None:
    detector = find_detector(config.model)
    return detector if detector is not None and detector.library == "torchvision" else None


def _is_plain(config: RunConfig) -> bool:
    return (config.anchors, config.pooler_size, config.channels) == ("stock", 7, 3) and config.norm != "group"


def _with_anchorage() -> list[str]:
    return [
        "from app.pipeline.config import parse_config",
        "from app.pipeline.models.build import build_model",
        'model = build_model(parse_config(facts["config"]), len(facts["classes"]))',
    ]


def _plain_model(detector: Detector) -> str:
    if detector.name in _BY_NAME:
        return 'torchvision.models.get_model(facts["model"], weights=None, weights_backbone=None, **facts["arguments"])'
    if detector.head == "v2":  # torchvision's v2 with another backbone in place of its own
        return "\n".join(
            [
                'torchvision.models.get_model("fasterrcnn_resnet50_fpn_v2", weights=None, weights_backbone=None, '
                '**facts["arguments"])',
                f"model.backbone = {_backbone(detector)}",
            ]
        )
    return f'torchvision.models.detection.FasterRCNN({_backbone(detector)}, **facts["arguments"])'


def _backbone(detector: Detector, norm: str = "") -> str:
    """An expression for the backbone; ``norm`` is one for the norm layer, "" for the builder's own."""
    tools = "torchvision.models.detection.backbone_utils"
    if detector.family == "mobilenet":
        argument = f", norm_layer={norm}" if norm else ""
        return f'{tools}.mobilenet_backbone(backbone_name="{detector.backbone}", weights=None, fpn=True{argument})'
    if detector.head == "v2":
        finest = _CHANNELS.get(detector.backbone, 256)
        argument = f", norm_layer={norm}" if norm else ""
        return (
            f"{tools}.BackboneWithFPN(torchvision.models.{detector.backbone}(weights=None{argument}), "
            '{f"layer{i + 1}": str(i) for i in range(4)}, '
            f"[{finest} * 2**i for i in range(4)], 256, norm_layer={norm or 'torch.nn.BatchNorm2d'})"
        )
    argument = f", norm_layer={norm}" if norm else ""
    return f'{tools}.resnet_fpn_backbone(backbone_name="{detector.backbone}", weights=None{argument})'


def _composed_model(detector: Detector, config: RunConfig) -> list[str]:
    """A model put together from its parts, as the facts tell them."""
    lines, norm = [], ""
    if config.norm == "group":
        lines = ["import math", "norm = lambda channels: torch.nn.GroupNorm(math.gcd(32, channels), channels)"]
        norm = "norm"
    lines.append(f"backbone = {_backbone(detector, norm)}")
    if config.channels == 1:
        stem = "conv1" if detector.family == "resnet" else '["0"][0]'
        old = f"backbone.body.{stem}" if stem == "conv1" else f"backbone.body{stem}"
        lines.append(
            f"{old} = torch.nn.Conv2d(1, {old}.out_channels, {old}.kernel_size, {old}.stride, "
            f"{old}.padding, bias=False)"
        )
    lines += [
        "from torchvision.models.detection import anchor_utils, faster_rcnn, rpn",
        'cells = [torch.tensor(level) for level in facts["anchors"]]',
        "anchors = anchor_utils.AnchorGenerator([[1.0] * len(level) for level in cells], [[1.0]] * len(cells))",
        "anchors.cell_anchors = cells",
        'size = facts["pooler_size"]',
        'pooler = torchvision.ops.MultiScaleRoIAlign(["0", "1", "2", "3"], size, 2)',
        "parts = dict(rpn_anchor_generator=anchors, box_roi_pool=pooler)",
    ]
    if detector.head == "v2":
        lines += [
            "parts |= dict(rpn_head=rpn.RPNHead(256, len(cells[0]), conv_depth=2))",
            "parts |= dict(box_head=faster_rcnn.FastRCNNConvFCHead((256, size, size), [256] * 4, [1024], "
            f"norm_layer={norm or 'torch.nn.BatchNorm2d'}))",
        ]
    lines.append('model = faster_rcnn.FasterRCNN(backbone, **parts, **facts["arguments"])')
    return lines
