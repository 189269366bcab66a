"""Backbones of timm learn: the loss on two images falls. `benchmarks/overfit_two.py` takes it to below a tenth."""

import statistics

import pytest

from benchmarks.overfit_two import overfit

SMALL_HEAD = {"proposals": 40, "rpn_batch_size": 32, "roi_batch_size": 16}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "values"),
    [
        ("fasterrcnn_efficientnet_b0_fpn", {"norm": "group", "learning_rate": 1e-3}),
        ("fasterrcnn_swin_t_fpn", {"learning_rate": 3e-4}),
    ],
    ids=["efficientnet, group norm", "swin"],
)
def test_loss_on_two_images_falls(model, values):
    losses = overfit(model, 64, 16, warmup_steps=2, **SMALL_HEAD, **values)
    assert statistics.mean(losses[-3:]) < 0.7 * losses[0]
