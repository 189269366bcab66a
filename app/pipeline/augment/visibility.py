"""What is left of boxes that were cut off or hidden. Imports no torch.

Legend: N boxes, H holes. Rows are [N, 4 + extra]: xyxy pixels, then columns that travel untouched. Holes are [H, 4]
xyxy whole pixels inside the image.
"""

import numpy as np

MIN_VISIBILITY = 0.1  # a box of which less is left, by being cut off or hidden, is lost
MIN_SIDE_PX = 1.0


def visible_rows(rows: np.ndarray, width: int, height: int, min_visibility: float) -> np.ndarray:
    """Rows clipped to an image of ``width`` x ``height``, without those left with less than ``min_visibility`` of
    their area or a side below MIN_SIDE_PX."""
    if not len(rows):
        return rows
    clipped = rows.copy()
    np.clip(rows[:, :4], 0, [width, height, width, height], out=clipped[:, :4])
    sides = clipped[:, 2:4] - clipped[:, :2]
    areas = (rows[:, 2] - rows[:, 0]) * (rows[:, 3] - rows[:, 1])
    is_visible = sides.prod(axis=1) >= min_visibility * areas
    return clipped[is_visible & (sides >= MIN_SIDE_PX - 1e-6).all(axis=1)]


def hide_boxes(boxes: np.ndarray, holes: np.ndarray, width: int, height: int) -> np.ndarray:
    """Shrink boxes to what the holes leave visible and drop those with less than MIN_VISIBILITY of their pixels left.

    boxes: [N, 4 + extra] xyxy pixels; returns the same layout with N or fewer rows. Albumentations' own version rounds
    every box down to whole pixels, also those that no hole touches; here such boxes stay exactly as they are.
    """
    hidden = np.zeros((height, width), bool)
    for x1, y1, x2, y2 in holes:
        hidden[y1:y2, x1:x2] = True
    kept = []
    for row in boxes:
        x1, y1 = np.floor(row[:2]).astype(int)
        x2, y2 = np.ceil(row[2:4]).astype(int)
        visible = ~hidden[y1:y2, x1:x2]
        num_visible = visible.sum()
        if num_visible == 0 or num_visible < MIN_VISIBILITY * visible.size:
            continue
        row = row.copy()
        if num_visible < visible.size:
            columns = np.flatnonzero(visible.any(axis=0))
            rows = np.flatnonzero(visible.any(axis=1))
            row[0], row[2] = max(row[0], x1 + columns[0]), min(row[2], x1 + columns[-1] + 1)
            row[1], row[3] = max(row[1], y1 + rows[0]), min(row[3], y1 + rows[-1] + 1)
        kept.append(row)
    return np.array(kept, boxes.dtype).reshape(-1, boxes.shape[1])
