"""Finding the options of a fusion by trying: one after the other, each to its best, until none helps. No torch."""

from collections.abc import Callable, Iterator

from app.pipeline.ensemble import FusionOptions

IOU_THRESHOLDS = tuple(step / 100 for step in range(30, 85, 5))
SKIP_THRESHOLDS = (0.0, 0.005, 0.01, 0.02, 0.05, 0.1)
WEIGHT_FACTORS = (0.25, 0.5, 2.0, 4.0)
SMALLEST_STEP = 1e-4  # of the score: less is taken for noise, and the option stays as it was
MAX_ROUNDS = 3

Score = Callable[[FusionOptions], float]


def tune(start: FusionOptions, num_members: int, score: Score) -> FusionOptions:
    """The options with the best ``score`` found (higher is better): IoU, skip threshold and the members' weights.

    Coordinate search from ``start``: each option in turn takes the best of its grid, a weight the best of a quarter to
    four times its value; at most three rounds. The same trial is never made twice.
    """
    known: dict[FusionOptions, float] = {}

    def look_up(options: FusionOptions) -> float:
        if options not in known:
            known[options] = score(options)
        return known[options]

    best = _with_weights(start, (1.0,) * num_members)
    for _ in range(MAX_ROUNDS):
        before = best
        for turn in range(2 + num_members):
            for options in list(_variants(best, turn)):
                if look_up(options) >= look_up(best) + SMALLEST_STEP:
                    best = options
        if best == before:
            break
    return best


def num_trials(method: str, num_members: int) -> int:
    """About how many trials :func:`tune` makes: those of two rounds, less what comes twice."""
    start = _with_weights(FusionOptions(method=method), (1.0,) * num_members)
    return 1 + sum(2 * len(list(_variants(start, turn))) for turn in range(2 + num_members))


def _variants(options: FusionOptions, turn: int) -> Iterator[FusionOptions]:
    """The options with one of them changed: IoU (soft-NMS has none), skip threshold, then one member's weight."""
    if turn == 0:
        if options.method != "soft_nms":
            yield from (options.model_copy(update={"iou_threshold": value}) for value in IOU_THRESHOLDS)
    elif turn == 1:
        yield from (options.model_copy(update={"skip_threshold": value}) for value in SKIP_THRESHOLDS)
    else:
        for factor in WEIGHT_FACTORS:
            weights = list(options.weights)
            weights[turn - 2] *= factor
            yield _with_weights(options, tuple(weights))


def _with_weights(options: FusionOptions, weights: tuple[float, ...]) -> FusionOptions:
    """The largest is 1, so that the same shares are the same options."""
    return options.model_copy(update={"weights": tuple(weight / max(weights) for weight in weights)})
