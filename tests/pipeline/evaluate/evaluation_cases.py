"""pycocotools' own answer, and random cases to compare on."""

import contextlib
import io
from pathlib import Path

import hotcoco
import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from app.pipeline.data.categories import CategoryMap
from app.pipeline.data.snapshot import Sample
from app.pipeline.evaluate.columns import DetectionColumns, GroundTruth
from app.pipeline.types import Detections


def make_sample(image_id, boxes, labels, is_crowd=None):
    """A sample of which evaluation reads the id and the boxes."""
    crowd = np.zeros(len(labels), bool) if is_crowd is None else np.array(is_crowd, bool)
    boxes = np.array(boxes, np.float64).reshape(-1, 4)
    name = f"{image_id}.jpg"
    return Sample(image_id, Path(name), name, "valid", 640, 640, 0, boxes, np.array(labels, np.int64), crowd)


def make_categories(count):
    """Classes whose COCO ids are not their labels."""
    return CategoryMap(tuple(10 * n + 7 for n in range(count)), tuple(f"class {n}" for n in range(count)))


def random_boxes(rng, count, size=300):
    corner = rng.uniform(0, size, (count, 2))
    return np.concatenate([corner, corner + rng.uniform(1, rng.choice([20, 60, 200]), (count, 2))], axis=1)


def random_case(seed):
    """Truth and detections with crowds, ties, classes without truth, empty images and images without detections."""
    rng = np.random.default_rng(seed)
    num_classes = int(rng.integers(1, 5))
    samples, detections = [], {}
    for position in range(int(rng.integers(1, 12))):
        image_id = int(1000 - 7 * position)
        count = int(rng.integers(0, 12))
        boxes = random_boxes(rng, count)
        labels = rng.integers(1, max(num_classes, 2), count)  # the last of several classes never occurs in the truth
        samples.append(make_sample(image_id, boxes, labels, rng.random(count) < 0.15))
        if rng.random() < 0.2:
            continue
        near = np.repeat(boxes, 2, axis=0) + rng.normal(0, rng.choice([0.0, 2.0, 8.0]), (2 * count, 4))
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2])
        found = np.concatenate([near, random_boxes(rng, int(rng.integers(0, 8)))])
        scores = np.round(rng.random(len(found)), 1 if rng.random() < 0.5 else 6)  # coarse scores: many ties
        found_labels = np.concatenate([np.repeat(labels, 2), rng.integers(1, num_classes + 1, len(found) - 2 * count)])
        detections[image_id] = Detections(found, scores, found_labels)
    return GroundTruth.from_samples(samples, make_categories(num_classes)), detections


def xywh_of(boxes):
    boxes = boxes.astype(np.float64)
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def hotcoco_eval(truth, columns, caps=(1, 10, 100)):
    """hotcoco's COCOeval after evaluate. It numbers annotations from 1, as pycocotools must be given them."""
    xywh = xywh_of(truth.boxes)
    images = [{"id": n, "width": 1, "height": 1, "file_name": ""} for n in range(truth.num_images)]
    classes = [{"id": n + 1, "name": str(n)} for n in range(len(truth.categories))]
    where = (truth.image_index, truth.labels, xywh)
    labelled = hotcoco.COCO.from_arrays(images, classes, *where, area=xywh[:, 2] * xywh[:, 3], iscrowd=truth.is_crowd)
    rows = np.column_stack([columns.image_index, xywh_of(columns.boxes), columns.scores, columns.labels])
    evaluation = hotcoco.COCOeval(labelled, labelled.load_res(rows), "bbox")
    evaluation.params.max_dets = list(caps)
    evaluation.evaluate()
    return evaluation


def pycocotools_eval(truth, detections, caps=(1, 10, 100)):
    """A COCOeval after evaluate and accumulate. Image ids are positions: pycocotools sorts images by id."""
    columns = DetectionColumns.from_detections(truth, detections)

    def xywh(boxes):
        return xywh_of(boxes).tolist()

    annotations = [
        {"id": n + 1, "image_id": int(i), "category_id": int(k), "bbox": b, "area": b[2] * b[3], "iscrowd": int(c)}
        for n, (i, k, b, c) in enumerate(
            zip(truth.image_index, truth.labels, xywh(truth.boxes), truth.is_crowd, strict=True)
        )
    ]
    results = [
        {"image_id": int(i), "category_id": int(k), "bbox": b, "score": float(s)}
        for i, k, b, s in zip(columns.image_index, columns.labels, xywh(columns.boxes), columns.scores, strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        labelled = COCO()
        labelled.dataset = {
            "images": [{"id": n, "width": 400, "height": 400} for n in range(truth.num_images)],
            "categories": [{"id": n + 1, "name": str(n)} for n in range(len(truth.categories))],
            "annotations": annotations,
        }
        labelled.createIndex()
        evaluation = COCOeval(labelled, labelled.loadRes(results), "bbox")
        evaluation.params.maxDets = list(caps)
        evaluation.evaluate()
        evaluation.accumulate()
        if list(caps) == [1, 10, 100]:
            evaluation.summarize()
    return evaluation
