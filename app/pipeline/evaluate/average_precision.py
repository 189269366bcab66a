"""Average precision from scores and outcomes, as COCO reads it: at 101 recalls, precision falling. Imports no torch."""

import numpy as np

RECALLS = np.linspace(0, 1, 101)  # as pycocotools makes them, to the bit


def average_precision(is_true_positive: np.ndarray, num_truth: int) -> float:
    """AP of one class at one IoU; ``is_true_positive`` (bool [D]) by falling score. 0 without detections.

    ``num_truth`` labelled boxes, at least one.
    """
    tp = np.cumsum(is_true_positive)
    precision = tp / (np.arange(len(tp)) + 1)
    falling = np.maximum.accumulate(precision[::-1])[::-1]
    reached = np.searchsorted(tp / num_truth, RECALLS, side="left")
    return float(np.append(falling, 0.0)[np.minimum(reached, len(tp))].mean())
