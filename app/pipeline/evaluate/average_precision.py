"""Average precision from scores and outcomes, as COCO reads it: at 101 recalls, precision falling. Imports no torch."""

import numpy as np

RECALLS = np.linspace(0, 1, 101)  # as pycocotools makes them, to the bit


def average_precision(is_true_positive: np.ndarray, num_truth: int) -> float:
    """AP of one class at one IoU; ``is_true_positive`` (bool [D]) by falling score. 0 without detections.

    ``num_truth`` labelled boxes, at least one. Precision has its peaks at true positives, and recall its steps.
    """
    rows = np.flatnonzero(is_true_positive)
    tp = np.arange(1, len(rows) + 1)
    falling = np.maximum.accumulate((tp / (rows + 1))[::-1])[::-1]
    reached = np.searchsorted(tp / num_truth, RECALLS, side="left")
    return float(np.append(falling, 0.0)[np.minimum(reached, len(tp))].mean())
