"""Which images an epoch has, and in what order: a pure function of (seed, epoch), so that a run can go on exactly.

Imports no torch. Legend: I images, C classes. "Empty" is an image without objects.
"""

from collections.abc import Sequence

import numpy as np

from app.pipeline.config import RunConfig


class Sampler:
    """Draws the indices of each epoch, among images given by their ``labels``.

    labels: for each image the class of each object (any whole numbers; empty without objects).

    ``uniform``: every image once. ``inverse_frequency``: as many draws as there are images with objects, with
    replacement, in proportion to the mean of 1 / (objects of the class) over the classes in the image.
    ``repeat_factor``: every image r times, r = max(1, max over its classes of sqrt(t / f)) with f the share of images
    that have the class (Gupta, Dollar, Girshick, LVIS, 2019, section 5.1); the fractional part of r is drawn anew each
    epoch. In all of them empty images come at most once, ``max_empty_share`` of the epoch at most; which ones is drawn
    anew each epoch.

    ``len`` is the number of draws of an epoch, the same for all epochs: with repeat_factor it is the sum of r, rounded
    up. It is 0 when nothing is left to draw.
    """

    def __init__(self, labels: Sequence[np.ndarray], config: RunConfig) -> None:
        self._seed = config.seed
        self._mode = config.sampling
        is_empty = np.array([len(one) == 0 for one in labels], bool)
        self._full = np.flatnonzero(~is_empty)
        self._empty = np.flatnonzero(is_empty) if config.keep_empty_images else np.zeros(0, np.int64)
        full_labels = [np.asarray(labels[index]) for index in self._full]
        self._num_full = len(self._full)
        if self._mode == "inverse_frequency":
            self._weights = inverse_frequency_weights(full_labels)
        elif self._mode == "repeat_factor":
            num_images = len(self._full) + len(self._empty)
            self._factors = repeat_factors(full_labels, num_images, config.repeat_threshold)
            self._num_full = int(np.ceil(self._factors.sum() - 1e-9))
        self._num_empty = min(len(self._empty), _most_empty(self._num_full, config.max_empty_share))

    def __len__(self) -> int:
        return self._num_full + self._num_empty

    @property
    def images(self) -> np.ndarray:
        """int64 [I], rising: the images that some epoch may have."""
        empty = self._empty if self._num_empty else self._empty[:0]
        return np.sort(np.concatenate([self._full, empty]))

    def order(self, epoch: int) -> np.ndarray:
        """int64 [len]: the images of ``epoch`` (1, 2, …) in the order in which they are trained on."""
        dice = np.random.default_rng((self._seed, epoch))
        images = self.images
        if self._mode == "uniform" and self._num_empty == len(self._empty):
            return images[dice.permutation(len(images))]
        drawn = np.concatenate([self._draw_full(dice), dice.permutation(self._empty)[: self._num_empty]])
        return drawn[dice.permutation(len(drawn))]

    def _draw_full(self, dice: np.random.Generator) -> np.ndarray:
        if self._mode == "inverse_frequency" and len(self._full):
            return dice.choice(self._full, len(self._full), p=self._weights)
        if self._mode == "repeat_factor" and len(self._full):
            return self._repeat(dice)
        return self._full

    def _repeat(self, dice: np.random.Generator) -> np.ndarray:
        """Each image floor(r) or ceil(r) times, r on average: marks one apart are laid over the factors end to end.

        Their number is the sum of r rounded down or up; rounded down, one image more is drawn.
        """
        shuffled = dice.permutation(len(self._full))
        ends = np.floor(np.cumsum(self._factors[shuffled]) + dice.random())
        drawn = np.repeat(self._full[shuffled], np.diff(ends, prepend=0.0).astype(np.int64))
        if len(drawn) < self._num_full:
            extra = dice.choice(self._full, self._num_full - len(drawn), p=self._factors / self._factors.sum())
            drawn = np.concatenate([drawn, extra])
        return drawn[: self._num_full]


def inverse_frequency_weights(labels: Sequence[np.ndarray]) -> np.ndarray:
    """float64 [I], sum 1: the mean, over the classes in each image, of 1 / (objects of the class in all images)."""
    if not len(labels):
        return np.zeros(0)
    classes, counts = np.unique(np.concatenate(labels), return_counts=True)
    inverse = dict(zip(classes.tolist(), (1 / counts).tolist(), strict=True))
    weights = np.array([np.mean([inverse[label] for label in set(one.tolist())]) for one in labels])
    return weights / weights.sum()


def repeat_factors(labels: Sequence[np.ndarray], num_images: int, threshold: float) -> np.ndarray:
    """float64 [I], each at least 1: LVIS's repeat factors of images with these labels, among ``num_images``."""
    if not len(labels):
        return np.zeros(0)
    present = [set(one.tolist()) for one in labels]
    classes, counts = np.unique(np.concatenate([list(one) for one in present]), return_counts=True)
    factors = np.maximum(1, np.sqrt(threshold * num_images / counts))
    of_class = dict(zip(classes.tolist(), factors.tolist(), strict=True))
    return np.array([max(of_class[label] for label in one) for one in present])


def _most_empty(num_full: int, max_share: float) -> int:
    """How many empty images may go with ``num_full`` others so that they are at most ``max_share`` of all."""
    if max_share >= 1:
        return np.iinfo(np.int64).max
    return int(num_full * max_share / (1 - max_share) + 1e-9)
