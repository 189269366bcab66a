"""What goes on over a run: phases, averaged weights, accumulated batches, an early end, the metric of choice."""

import pytest
import torch

from app.pipeline.config import parse_config
from app.pipeline.train import learner, loop, phases
from app.pipeline.train.checkpoint import Scores, load_checkpoint
from app.pipeline.train.loop import train
from app.pipeline.train.run import Run
from app.pipeline.train.validation import Judge, Judgement, Patience
from app.pipeline.types import CheckpointSaved, Log, Metrics, Progress, RunContext
from tests.pipeline.train.tiny_dataset import TINY, tiny_snapshot

STAGED = [
    {"train": "rpn", "epochs": 1, "learning_rate": 0.01},
    {"train": "heads", "epochs": 1, "learning_rate": 0.005},
    {"train": "all", "epochs": 1, "learning_rate": 0.002},
]
FROZEN = {"rpn": ("backbone.body", "roi_heads"), "heads": ("backbone", "rpn"), "all": ()}

pytestmark = pytest.mark.usefixtures("tiny_model")


@pytest.fixture
def snapshot(tmp_path):
    return tiny_snapshot(tmp_path)


def follow(monkeypatch):
    """Note the state dict before the first step and after each, with the part that learned."""
    seen = []
    step = loop.train_step

    def note(run, batches, epoch):
        if not seen:
            seen.append(("start", copy_of(run.learner.model)))
        step(run, batches, epoch)
        seen.append((run.learner.phases.part, copy_of(run.learner.model)))

    monkeypatch.setattr(loop, "train_step", note)
    return seen


def copy_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def changed(before, after):
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_frozen_parts_stay_the_same_to_the_bit_and_the_others_learn(snapshot, tmp_path, monkeypatch, optimizer):
    """Also after a validation, which leaves a model in training mode, where batch norm would go on counting."""
    seen = follow(monkeypatch)
    two_epochs = [{**phase, "epochs": 2} for phase in STAGED]
    config = parse_config({**TINY, "epochs": 6, "phases": two_epochs, "optimizer": optimizer, "weight_decay": 0.1})
    assert train(config, snapshot, tmp_path / "run").state == "done"
    assert [part for part, _ in seen] == ["start", *["rpn"] * 4, *["heads"] * 4, *["all"] * 4]
    for part, start, end in (("rpn", 0, 4), ("heads", 4, 8), ("all", 8, 12)):
        names = changed(seen[start][1], seen[end][1])
        assert not [name for name in names if name.startswith(FROZEN[part])]
        learned = {name.split(".")[0] for name in names}
        assert learned == {"rpn": {"backbone", "rpn"}, "heads": {"roi_heads"}}.get(
            part, {"backbone", "rpn", "roi_heads"}
        )


def test_the_check_sees_batch_norm_that_goes_on_counting(snapshot, tmp_path, monkeypatch):
    """The frozen body left in training mode: no gradient flows, and its statistics change all the same."""
    monkeypatch.setattr(phases, "_MODES_KEPT", ("", "rpn", "backbone.body.layer1.2"))
    with pytest.raises(AssertionError):
        test_frozen_parts_stay_the_same_to_the_bit_and_the_others_learn(snapshot, tmp_path, monkeypatch, "sgd")


def test_only_the_losses_of_the_phase_are_computed(snapshot, tmp_path, monkeypatch):
    events, ran = [], []
    phases_of = learner.Phases

    def watched(model, config):
        model.roi_heads.register_forward_hook(lambda module, *rest: ran.append(module.training))
        return phases_of(model, config)

    monkeypatch.setattr(learner, "Phases", watched)
    values = {**TINY, "epochs": 3, "phases": STAGED, "evaluate_every": 3}
    train(parse_config(values), snapshot, tmp_path / "run", RunContext(events.append))
    losses = [
        {name for name in event.values if name.startswith("loss_")}
        for event in events
        if isinstance(event, Metrics) and event.split == "train"
    ]
    rpn, heads = {"loss_objectness", "loss_rpn_box_reg"}, {"loss_classifier", "loss_box_reg"}
    assert losses == [rpn] * 2 + [heads] * 2 + [rpn | heads] * 2
    assert ran == [True] * 4 + [False] * len(ran[4:])  # heads and all train it twice each; then the validation
    rates = [event.values["learning_rate"] for event in events if isinstance(event, Metrics) and event.split == "train"]
    assert rates == pytest.approx([0.01, 1e-6, 0.005, 1e-6, 0.002, 1e-6], rel=1e-3)
    told = [event.text for event in events if isinstance(event, Log) and event.text.startswith("Phase")]
    assert len(told) == 3


def test_accumulated_batches_make_one_step_with_their_mean_losses(snapshot, tmp_path):
    events = []
    config = parse_config({**TINY, "batch_size": 1, "accumulate_batches": 3, "epochs": 2})
    train(config, snapshot, tmp_path / "run", RunContext(events.append))
    steps = [event for event in events if isinstance(event, Metrics) and event.split == "train"]
    assert [(event.step, event.epoch) for event in steps] == [(1, 1), (2, 1), (3, 2), (4, 2)]  # of 3 and 1 images
    for event in steps:
        parts = [value for name, value in event.values.items() if name.startswith("loss_")]
        assert event.values["loss"] == pytest.approx(sum(parts), rel=1e-5)
    assert steps[-1].values["learning_rate"] == pytest.approx(1e-6)
    assert [event for event in events if isinstance(event, Progress)][-1].total == 4


def test_stop_between_accumulated_batches_leaves_the_weights_of_the_last_step(snapshot, tmp_path, monkeypatch):
    seen, asked = follow(monkeypatch), []
    config = parse_config({**TINY, "batch_size": 1, "accumulate_batches": 4})
    result = train(config, snapshot, tmp_path / "run", RunContext(should_stop=lambda: asked.append(1) or True))
    assert result.state == "stopped"
    learned = changed(seen[0][1], load_checkpoint(tmp_path / "run" / "last.pt").tensors)
    assert not [name for name in learned if name.endswith(("weight", "bias"))]


def test_averaged_weights_are_judged_kept_and_exported(snapshot, tmp_path, monkeypatch):
    judged, averages = [], []
    judge, start = Judge.judge, Run.start.__func__
    monkeypatch.setattr(
        Judge,
        "judge",
        lambda self, detector, *rest: judged.append(copy_of(detector.model)) or judge(self, detector, *rest),
    )
    monkeypatch.setattr(
        Run, "start", classmethod(lambda cls, *args: averages.append(start(cls, *args)) or averages[-1])
    )
    train(parse_config({**TINY, "ema_decay": 0.9}), snapshot, tmp_path / "run")
    (run,) = averages
    expected = run.learner.average.model.state_dict()
    assert changed(expected, run.learner.model.state_dict())
    (best,) = (tmp_path / "run").glob("epoch_*.pt")
    for found in (judged[0], load_checkpoint(best).tensors, load_checkpoint(tmp_path / "run" / "last.pt").tensors):
        assert not changed(expected, found)
    document = torch.load(tmp_path / "run" / "last.pt", weights_only=True)
    assert not changed(run.learner.model.state_dict(), document["trained_model"])
    assert document["ema"] == {"num_updates": 2, "decay": 0.9}


def judged_as(monkeypatch, figures):
    """Let the validations give these (mAP50, F1) in turn, by the run's metric."""
    given = iter(figures)

    def judge(self, detector, relieve):
        map50, f1 = next(given)
        return Judgement(Scores(map50 / 2, map50, 1 - map50, f1, self._metric), {})

    monkeypatch.setattr(Judge, "judge", judge)


def test_run_ends_early_after_validations_in_vain_and_says_so(snapshot, tmp_path, monkeypatch):
    judged_as(monkeypatch, [(0.2, 0.2), (0.5, 0.5), (0.4, 0.4), (0.5, 0.5), (0.9, 0.9)])
    events = []
    config = parse_config({**TINY, "epochs": 9, "patience": 2})
    result = train(config, snapshot, tmp_path / "run", RunContext(events.append))
    assert (result.state, result.epochs, result.best["epoch"]) == ("done", 4, 2)
    (told,) = [event.text for event in events if isinstance(event, Log) and "early" in event.text]
    assert "epoch 4 of 9: 2 validations without a better 0.5 mAP50 + 0.5 F1 than 0.500 of epoch 2" in told
    last = [event for event in events if isinstance(event, Progress)][-1]
    assert last.done == last.total == 8
    assert load_checkpoint(tmp_path / "run" / "last.pt").epoch == 4


def test_run_that_ended_early_says_so_again_without_its_best_files(snapshot, tmp_path, monkeypatch):
    judged_as(monkeypatch, [(0.5, 0.5), (0.4, 0.4)])
    config, folder, texts = parse_config({**TINY, "epochs": 9, "patience": 1}), tmp_path / "run", []
    train(config, snapshot, folder)
    for path in folder.glob("epoch_*.pt"):
        path.unlink()
    emit = lambda event: texts.append(event.text) if isinstance(event, Log) else None  # noqa: E731
    assert train(config, snapshot, folder, RunContext(emit)).state == "done"
    assert texts[-1].endswith("1 validations without a better 0.5 mAP50 + 0.5 F1.")


def test_patience_waits_for_the_last_phase(snapshot, tmp_path, monkeypatch):
    """While the RPN learns alone no figure gets better: that is no reason to end."""
    judged_as(monkeypatch, [(0.0, 0.0)] * 3 + [(0.1, 0.1)] * 3)
    staged = [{**STAGED[0], "epochs": 3}, {**STAGED[2], "epochs": 6}]
    config = parse_config({**TINY, "epochs": 9, "patience": 2, "phases": staged})
    assert train(config, snapshot, tmp_path / "run").epochs == 6


def test_patience_of_nothing_never_runs_out():
    patience = Patience(0)
    for _ in range(100):
        patience.note(0.0)
    assert not patience.is_out


FIGURES = [(0.9, 0.1), (0.6, 0.6), (0.2, 0.8)]


@pytest.mark.parametrize(
    ("metric", "epoch", "score"),
    [("map50_f1", 2, 0.6), ("map50", 1, 0.9), ("f1", 3, 0.8), ("map", 1, 0.45), ("map75", 3, 0.8)],
)
def test_the_chosen_metric_picks_the_best(snapshot, tmp_path, monkeypatch, metric, epoch, score):
    judged_as(monkeypatch, FIGURES)
    events = []
    config = parse_config({**TINY, "epochs": 3, "selection_metric": metric})
    result = train(config, snapshot, tmp_path / "run", RunContext(events.append))
    assert (result.best["epoch"], result.best["score"]) == (epoch, pytest.approx(score))
    saved = [event for event in events if isinstance(event, CheckpointSaved) and not event.is_last]
    assert max(event.score for event in saved) == pytest.approx(score)


def test_options_without_effect_are_told_at_the_start(snapshot, tmp_path):
    events = []
    config = parse_config({**TINY, "polynomial_power": 2, "optimizer": "sgd", "momentum": 0.8})
    train(config, snapshot, tmp_path / "run", RunContext(events.append))
    told = [event.text for event in events if isinstance(event, Log) and "no effect" in event.text]
    assert told == ["polynomial_power has no effect in this run. Used when schedule is polynomial."]
