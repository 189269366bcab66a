"""How long a run takes, from seconds measured. Imports no torch."""

from dataclasses import dataclass

from app.pipeline.config import RunConfig

# How much work a kill may cost, where saving is cheap; where it is not, saving takes at most this share of the time.
SAVE_EVERY_S = 60.0
MAX_SAVE_SHARE = 0.02
MAX_JUDGED_SHARE = 0.2  # of a run's time, where evaluate_every is 0


@dataclass(frozen=True, slots=True)
class RunSeconds:
    """Seconds of a run: of its steps, its validations, and saving."""

    train: float
    judge: float
    save: float

    @property
    def total(self) -> float:
        return self.train + self.judge + self.save


def estimate_run(
    config: RunConfig, epoch_s: float, validation_s: float, save_s: float = 0.0, num_gpus: int = 1
) -> RunSeconds:
    """From the seconds of an epoch's steps at ``image_size``, of one validation, and of saving the last checkpoint.

    ``num_gpus`` share the images. Time is taken to grow with the number of pixels. What an early end or staged training
    saves is not known before.
    """
    epoch_s, validation_s = epoch_s / num_gpus, validation_s / num_gpus
    sizes = config.progressive_sizes or (config.image_size,)
    train = config.epochs * epoch_s * sum((size / config.image_size) ** 2 for size in sizes) / len(sizes)
    if config.evaluate_every:
        judge = validation_s * -(-config.epochs // config.evaluate_every)
    else:
        judge = min(config.epochs * validation_s, train * MAX_JUDGED_SHARE / (1 - MAX_JUDGED_SHARE))
    num_saves = 1 + train // max(SAVE_EVERY_S, save_s / MAX_SAVE_SHARE)
    return RunSeconds(train, judge, num_saves * save_s)
