"""Trouble in the middle of a run, injected: what the run does about it, and that it can be killed all the same.

Deaths and the comparison of final states are those of run_lab.
"""

import errno
import json
import os
from contextlib import nullcontext

import pytest
import torch

from app.pipeline.config import parse_config
from app.pipeline.data import pixels
from app.pipeline.data.pixels import UnreadableImage
from app.pipeline.models import build
from app.pipeline.predict import Detector
from app.pipeline.train import checkpoint, guards, learner, loop, trouble
from app.pipeline.train.checkpoint import CheckpointError, load_checkpoint
from app.pipeline.train.guards import OutOfMemory, Remedies
from app.pipeline.train.loop import train
from app.pipeline.train.optim import NonFiniteLoss, Updater
from app.pipeline.train.run import Run
from app.pipeline.train.unreadable import DatasetError
from app.pipeline.types import CheckpointSaved, Metrics, PredictionsReady, RunContext, RunPaused
from tests.pipeline.train.run_lab import Killed, Store, compute_in_float16, final_state, until_done
from tests.pipeline.train.test_workers import PageFile
from tests.pipeline.train.tiny_dataset import TINY, construct_tiny_with_all_that_changes, tiny_snapshot

CONFIG = {**TINY, "epochs": 3, "batch_size": 4, "ema_decay": 0.9}

pytestmark = pytest.mark.usefixtures("tiny_model", "saves_after_every_step")


@pytest.fixture
def snapshot(tmp_path):
    return tiny_snapshot(tmp_path, num_train=8)


def saved_progress(folder):
    return json.loads(torch.load(folder / "last.pt", weights_only=True)["progress_json"])


def killed_until_done(config, snapshot, folder, events_per_life=11):
    """Train with a death after so many events each time."""
    store = Store()

    def attempt(num_kills):
        store.num_events, store.dies_at = 0, events_per_life + num_kills % 3
        return train(config, snapshot, folder, RunContext(store.emit))

    result, num_kills = until_done(attempt)
    return result, store, num_kills


class Memory:
    """A network that holds ``most`` images at a time, from optimizer step ``first_step`` on."""

    def __init__(self, monkeypatch, most, first_step=0):
        self.sizes, self.step = [], 0
        compute, train_step = learner.compute_losses, loop.train_step

        def limited(model, batch, *rest):
            losses = compute(model, batch, *rest)  # dice are thrown and statistics counted before memory runs out
            if len(batch) > most and self.step >= first_step:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            self.sizes.append(len(batch))
            return losses

        def counted(run, *rest):
            self.step = run.step
            return train_step(run, *rest)

        monkeypatch.setattr(learner, "compute_losses", limited)
        monkeypatch.setattr(loop, "train_step", counted)


class TestOutOfMemory:
    def test_batch_is_halved_until_it_fits_and_the_images_of_a_step_stay(self, snapshot, tmp_path, monkeypatch):
        memory, store, folder = Memory(monkeypatch, most=1), Store(), tmp_path / "run"
        system = []
        emit = lambda event: (store.emit(event), system.append(event))  # noqa: E731
        result = train(parse_config(CONFIG), snapshot, folder, RunContext(emit))
        assert (result.state, result.remedies) == ("done", Remedies(batch_parts=4))
        assert memory.sizes == [1] * 8 * 3
        assert len([row for row in store.rows if row[1] == "train"]) == 2 * 3  # as many steps as with whole batches
        assert sum("images at a time" in text for text in store.logs) == 2
        shown = [one.values for one in system if isinstance(one, Metrics) and one.split == "system"]
        assert shown[-1]["images_at_once"] == 1
        assert saved_progress(folder)["remedies"]["batch_parts"] == 4

    def test_gradient_of_a_step_is_that_of_its_images_in_smaller_batches(self, snapshot, tmp_path, monkeypatch):
        """Step by step the same as a run configured to have half the batch and twice the accumulation."""
        config = {**CONFIG, "augmentation": [{"name": "HorizontalFlip"}]}
        expected, halved = Store(), Store()
        smaller = parse_config({**config, "batch_size": 2, "accumulate_batches": 2})
        train(smaller, snapshot, tmp_path / "smaller", RunContext(expected.emit))
        Memory(monkeypatch, most=2)
        train(parse_config(config), snapshot, tmp_path / "halved", RunContext(halved.emit))
        losses = [[row[3]["loss"] for row in store.rows if row[1] == "train"] for store in (expected, halved)]
        assert losses[1] == pytest.approx(losses[0], rel=1e-4)

    @pytest.mark.parametrize("first_step", [0, 1])
    def test_killed_after_it_the_run_keeps_the_smaller_batch_and_its_weights(
        self, snapshot, tmp_path, monkeypatch, first_step
    ):
        Memory(monkeypatch, most=2, first_step=first_step)
        config = parse_config(CONFIG)
        whole = Store()
        train(config, snapshot, tmp_path / "whole", RunContext(whole.emit))
        result, store, num_kills = killed_until_done(config, snapshot, tmp_path / "killed")
        assert num_kills >= 2
        assert result.remedies == Remedies(batch_parts=2)
        assert final_state(tmp_path / "killed") == final_state(tmp_path / "whole")
        assert store.rows == whole.rows

    def test_step_before_it_is_not_undone_and_the_failed_one_leaves_no_trace(self, snapshot, tmp_path, monkeypatch):
        """As many parts from the start, by hand, from the saved state of the step before."""
        Memory(monkeypatch, most=2, first_step=1)
        train(parse_config(CONFIG), snapshot, tmp_path / "injected")
        monkeypatch.undo()
        monkeypatch.setattr(build, "construct", construct_tiny_with_all_that_changes)
        steps = []
        note = lambda event: steps.append(1) if isinstance(event, Metrics) and event.split == "train" else None  # noqa: E731
        train(parse_config(CONFIG), snapshot, tmp_path / "by_hand", RunContext(note, lambda: len(steps) == 1))
        loop.go_through(Run.start(parse_config(CONFIG), snapshot, tmp_path / "by_hand", RunContext(), Remedies(2)))
        assert final_state(tmp_path / "injected") == final_state(tmp_path / "by_hand")

    def test_later_than_the_first_epoch_it_ends_with_advice_and_the_last_state(self, snapshot, tmp_path, monkeypatch):
        Memory(monkeypatch, most=2, first_step=3)
        with pytest.raises(OutOfMemory, match=r"in epoch 2; .* smaller batch_size \(here 4 at a time\) or image_size"):
            train(parse_config(CONFIG), snapshot, tmp_path / "run")
        state = torch.load(tmp_path / "run" / "last.pt", weights_only=True)
        assert (state["step"], saved_progress(tmp_path / "run")["remedies"]["batch_parts"]) == (3, 1)
        monkeypatch.undo()
        monkeypatch.setattr(build, "construct", construct_tiny_with_all_that_changes)
        train(parse_config(CONFIG), snapshot, tmp_path / "run")
        train(parse_config(CONFIG), snapshot, tmp_path / "undisturbed")
        assert final_state(tmp_path / "run") == final_state(tmp_path / "undisturbed")

    @pytest.mark.parametrize(("batch_size", "num_tries"), [(16, 4), (2, 2)])
    def test_at_most_three_times_and_not_below_one_image(self, tmp_path, monkeypatch, batch_size, num_tries):
        snapshot = tiny_snapshot(tmp_path, num_train=batch_size)
        Memory(monkeypatch, most=0)
        store = Store()
        with pytest.raises(OutOfMemory):
            config = parse_config({**CONFIG, "batch_size": batch_size})
            train(config, snapshot, tmp_path / "run", RunContext(store.emit))
        assert len(store.begun) == num_tries

    def test_switched_off_it_ends_at_once(self, snapshot, tmp_path, monkeypatch):
        Memory(monkeypatch, most=2)
        config = parse_config({**CONFIG, "halve_batch_when_out_of_memory": False})
        with pytest.raises(OutOfMemory, match="in epoch 1"):
            train(config, snapshot, tmp_path / "run")

    def test_in_the_middle_of_an_update_nothing_half_done_is_saved(self, snapshot, tmp_path, monkeypatch):
        """Optimizers allocate their momenta in the first step; it cannot be undone, so the run begins again."""
        step, failed = torch.optim.AdamW.step, []

        def failing(self, *rest):
            step(self, *rest)
            if not failed:
                failed.append(1)
                raise RuntimeError("CUDA out of memory. Tried to allocate 20 MiB")

        monkeypatch.setattr(torch.optim.AdamW, "step", failing)
        result = train(parse_config(CONFIG), snapshot, tmp_path / "run")
        assert result.remedies == Remedies(2)
        Memory(monkeypatch, most=2)
        train(parse_config(CONFIG), snapshot, tmp_path / "other")
        assert final_state(tmp_path / "run") == final_state(tmp_path / "other")


class Loss:
    """A loss that is NaN at the optimizer steps ``steps`` (finished before), while the rate was halved fewer times."""

    def __init__(self, monkeypatch, steps, halvings=1):
        compute, train_step, save = learner.compute_losses, loop.train_step, Run.save
        self.is_bad = False
        self.saved_at = []

        def spoiled(*args):
            losses = compute(*args)
            return {name: loss * float("nan") for name, loss in losses.items()} if self.is_bad else losses

        def noted(run, *rest):
            self.is_bad = run.step in steps and run.remedies.rate_halvings < halvings
            return train_step(run, *rest)

        def saved(run, **how):
            save(run, **how)
            self.saved_at.append(run.step)

        monkeypatch.setattr(learner, "compute_losses", spoiled)
        monkeypatch.setattr(loop, "train_step", noted)
        monkeypatch.setattr(Run, "save", saved)
        monkeypatch.setattr(Run, "is_save_due", lambda run: run.step % 2 == 0)


def rates(store):
    return [row[3]["learning_rate"] for row in store.rows if row[1] == "train"]


class TestNotFinite:
    CONFIG = {**CONFIG, "epochs": 4, "schedule": "constant", "warmup_steps": 0}

    @pytest.mark.parametrize(("at", "back_to"), [(3, 2), (4, 2), (5, 4)])
    def test_it_goes_back_and_on_with_half_the_rate(self, snapshot, tmp_path, monkeypatch, at, back_to):
        """At step 4 the newest state holds the weights that the NaN came from: it is the one before that helps."""
        config = parse_config(self.CONFIG)
        Loss(monkeypatch, {at})
        store = Store()
        result = train(config, snapshot, tmp_path / "run", RunContext(store.emit))
        assert result.remedies == Remedies(rate_halvings=1)
        assert [event.step for event in store.begun] == [0, back_to]
        assert rates(store) == pytest.approx([1e-3] * back_to + [5e-4] * (8 - back_to))
        (told,) = [text for text in store.logs if "going back" in text]
        assert f"After step {at} the loss" in told
        assert "0.5 of the learning rate" in told

    def test_killed_after_it_the_run_keeps_the_rate_and_its_weights(self, snapshot, tmp_path, monkeypatch):
        config = parse_config(self.CONFIG)
        Loss(monkeypatch, {3, 6}, halvings=2)
        whole = Store()
        expected = train(config, snapshot, tmp_path / "whole", RunContext(whole.emit))
        result, store, num_kills = killed_until_done(config, snapshot, tmp_path / "killed", events_per_life=14)
        assert num_kills >= 2
        assert result.remedies == expected.remedies == Remedies(rate_halvings=2)
        assert final_state(tmp_path / "killed") == final_state(tmp_path / "whole")
        assert store.rows == whole.rows

    def test_twice_at_most_then_it_names_the_images(self, snapshot, tmp_path, monkeypatch):
        Loss(monkeypatch, {3}, halvings=9)
        store = Store()
        with pytest.raises(NonFiniteLoss, match=r"became nan on a batch of train_\d\.png, .*lower learning rate"):
            train(parse_config(self.CONFIG), snapshot, tmp_path / "run", RunContext(store.emit))
        assert [event.step for event in store.begun] == [0, 2, 2]

    def test_before_the_first_checkpoint_it_begins_again(self, snapshot, tmp_path, monkeypatch):
        Loss(monkeypatch, {1})
        store = Store()
        train(parse_config(self.CONFIG), snapshot, tmp_path / "run", RunContext(store.emit))
        assert [event.step for event in store.begun] == [0, 0]
        assert rates(store) == pytest.approx([5e-4] * 8)

    @pytest.mark.parametrize("changes", [{"halve_rate_when_not_finite": False}, {}])
    def test_switched_off_or_in_the_very_first_step_it_ends_at_once(self, snapshot, tmp_path, monkeypatch, changes):
        Loss(monkeypatch, {3} if changes else {0})
        store = Store()
        with pytest.raises(NonFiniteLoss):
            train(parse_config({**self.CONFIG, **changes}), snapshot, tmp_path / "run", RunContext(store.emit))
        assert len(store.begun) == 1

    @pytest.mark.parametrize("at", [0, 3, 4, 7], ids=["the first", "one that is saved", "another", "the last"])
    def test_gradient_that_is_read_late_ends_as_one_that_is_read_at_once(self, snapshot, tmp_path, monkeypatch, at):
        """A GPU is not asked before the losses of the next step, or before something is saved or judged."""
        Loss(monkeypatch, set())
        train_step, apply, step_of = loop.train_step, Updater.apply, {}

        def noted(run, *rest):
            step_of["bad"] = run.step == at and not run.remedies.rate_halvings
            return train_step(run, *rest)

        def spoil(updater, names):
            if step_of["bad"]:
                updater._parameters[-1].grad.fill_(float("nan"))
            apply(updater, names)

        monkeypatch.setattr(loop, "train_step", noted)
        monkeypatch.setattr(Updater, "apply", spoil)
        ends = []
        for reads_late in (False, True):
            monkeypatch.setattr(Updater, "reads_late", reads_late)
            folder, store = tmp_path / str(reads_late), Store()
            try:
                train(parse_config(self.CONFIG), snapshot, folder, RunContext(store.emit))
                told = [text for text in store.logs if "going back" in text]
                ends.append((final_state(folder), *told, [event.step for event in store.begun]))
            except NonFiniteLoss as error:
                ends.append(("", error.what, [path.name for path in folder.glob("*.pt")]))
        assert ends[0] == ends[1]
        assert "the gradient became nan on a batch of train_" in ends[1][1]

    def test_weights_that_are_not_finite_are_neither_saved_nor_judged(self, snapshot, tmp_path, monkeypatch):
        """Without clipping nobody looks at the gradient: the weights of step 4 are the first to show it."""
        config = parse_config({**self.CONFIG, "clip_gradient_norm": 0, "ema_decay": 0})
        Loss(monkeypatch, set())
        apply, folder, spoiled, seen = Updater.apply, tmp_path / "run", [], []

        def spoil(updater, names):
            if len(spoiled) == 3:
                updater._parameters[-1].grad.fill_(float("nan"))
            spoiled.append(1)
            apply(updater, names)

        def look(event):
            if isinstance(event, CheckpointSaved):
                seen.append(load_checkpoint(folder / event.file_name).tensors)

        monkeypatch.setattr(Updater, "apply", spoil)
        result = train(config, snapshot, folder, RunContext(look))
        assert result.remedies == Remedies(rate_halvings=1)
        assert len(seen) >= 6
        assert all(value.isfinite().all() for tensors in seen for value in tensors.values())


class TestDiskFull:
    def fill(self, monkeypatch, at_save):
        """The disk is full from save number ``at_save`` on: the content is cut off in the middle, as torch tells it."""
        torch_save, saves = torch.save, []

        def cut_off(contents, file):
            saves.append(1)
            if len(saves) < at_save:
                return torch_save(contents, file)
            file.write(b"half")
            try:
                raise OSError(errno.ENOSPC, "No space left on device")
            except OSError:
                raise RuntimeError("unexpected pos 704 vs 598")  # noqa: B904 (what torch does)

        monkeypatch.setattr(checkpoint.torch, "save", cut_off)

    @pytest.mark.parametrize("at_save", [1, 3, 4])
    def test_run_is_paused_and_goes_on_to_the_same_weights_when_there_is_room(
        self, snapshot, tmp_path, monkeypatch, at_save
    ):
        """In the first save of all, in that of a step, in that of a best checkpoint."""
        config, folder = parse_config(CONFIG), tmp_path / "run"
        train(config, snapshot, tmp_path / "whole")
        store = Store()
        with monkeypatch.context() as patch:
            self.fill(patch, at_save)
            advice = r"to \S+: \d+ MB are free there\. Make room, then let the run go on$"
            with pytest.raises(RunPaused, match=f"the disk is full: .* could not be written {advice}"):
                train(config, snapshot, folder, RunContext(store.emit))
        assert not list(folder.glob(".*"))
        train(config, snapshot, folder, RunContext(store.emit))
        assert store.begun[1].step == min(at_save - 1, 2)
        assert final_state(folder) == final_state(tmp_path / "whole")

    @pytest.mark.parametrize("at_sync", [1, 5, 9])
    def test_found_out_beside_the_steps_it_pauses_the_run_too(self, snapshot, tmp_path, monkeypatch, at_sync):
        """Some file systems tell of it only when the file is brought to the disk."""
        config, folder = parse_config(CONFIG), tmp_path / "run"
        train(config, snapshot, tmp_path / "whole")
        fsync, syncs = os.fsync, []

        def full(descriptor):
            syncs.append(1)
            if len(syncs) >= at_sync:
                raise OSError(errno.ENOSPC, "No space left on device")
            fsync(descriptor)

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(RunPaused, match="the disk is full: .* could not be written"):
                train(config, snapshot, folder)
        assert not list(folder.glob(".*"))
        train(config, snapshot, folder)
        assert final_state(folder) == final_state(tmp_path / "whole")

    def test_switched_off_it_fails(self, snapshot, tmp_path, monkeypatch):
        self.fill(monkeypatch, 2)
        config = parse_config({**CONFIG, "pause_when_disk_is_full": False})
        with pytest.raises(CheckpointError):
            train(config, snapshot, tmp_path / "run")


class TestSkippedSteps:
    """With loss scaling a gradient that is not finite leaves the step out, for which there may be a reason to last."""

    CONFIG = {
        **CONFIG,
        "epochs": 8,
        "schedule": "constant",
        "warmup_steps": 0,
        "precision": "float16",
        "device": "auto",
    }

    def inject(self, monkeypatch, is_bad):
        """Gradients are NaN in updates number ``is_bad`` of a run whose rate was not halved."""
        compute_in_float16(monkeypatch)
        for module in (guards, learner, trouble):
            monkeypatch.setattr(module, "MAX_SKIPPED_STEPS", 4)
        monkeypatch.setattr(Run, "is_save_due", lambda run: run.step % 5 == 0)
        apply, train_step = Updater.apply, loop.train_step
        spoils = []

        def noted(run, *rest):
            spoils[:] = [run.remedies.rate_halvings == 0 and is_bad(run.step + 1)]
            return train_step(run, *rest)

        def spoil(updater, names):
            if spoils[0]:
                updater._parameters[-1].grad.fill_(float("nan"))
            apply(updater, names)

        monkeypatch.setattr(loop, "train_step", noted)
        monkeypatch.setattr(Updater, "apply", spoil)

    @pytest.mark.parametrize("clip_gradient_norm", [0.0, 10.0])
    def test_many_in_a_row_lead_back_to_the_state_before_them(
        self, snapshot, tmp_path, monkeypatch, clip_gradient_norm
    ):
        self.inject(monkeypatch, lambda step: step >= 7)
        store = Store()
        config = parse_config({**self.CONFIG, "clip_gradient_norm": clip_gradient_norm})
        result = train(config, snapshot, tmp_path / "run", RunContext(store.emit))
        assert result.remedies == Remedies(rate_halvings=1)
        assert [event.step for event in store.begun] == [0, 5]
        (told,) = [text for text in store.logs if "going back" in text]
        assert told.startswith("After step 13 the gradient was not finite in 4 steps in a row, the last on a batch of")

    def test_killed_among_them_the_run_ends_the_same(self, snapshot, tmp_path, monkeypatch):
        self.inject(monkeypatch, lambda step: step >= 7)
        config, ends = parse_config(self.CONFIG), []
        for is_killed in (False, True):
            store, folder = Store(), tmp_path / str(is_killed)

            def emit(event, store=store, is_killed=is_killed):
                store.emit(event)
                if is_killed and len(store.begun) == 1 and isinstance(event, Metrics) and event.step == 12:
                    raise Killed

            with pytest.raises(Killed) if is_killed else nullcontext():
                train(config, snapshot, folder, RunContext(emit))
            train(config, snapshot, folder, RunContext(emit))
            ends.append((final_state(folder), [text for text in store.logs if "going back" in text]))
        assert ends[0] == ends[1]

    def test_a_few_are_ordinary(self, snapshot, tmp_path, monkeypatch):
        self.inject(monkeypatch, lambda step: step % 4)
        result = train(parse_config(self.CONFIG), snapshot, tmp_path / "run")
        assert result.remedies == Remedies()


class TestValidation:
    """What befalls the validation at the end of an epoch."""

    def predict_with(self, monkeypatch, most):
        """A detector that predicts ``most`` images at a time; returns how many it was given."""
        detect, sizes = Detector._detect, []

        def limited(detector, images, originals):
            found = detect(detector, images, originals)
            if len(images) > most:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            sizes.append(len(images))
            return found

        monkeypatch.setattr(Detector, "_detect", limited)
        return sizes

    def fail_to_read(self, monkeypatch, snapshot, error, num_times=1):
        """Reading an image of the validation split fails so many times; not its first, which train has too."""
        contents, failed, read = snapshot.split("valid")[1].path.read_bytes(), [], pixels.read_image

        def failing(data, *rest):
            if data == contents and len(failed) < num_times:
                failed.append(1)
                raise error
            return read(data, *rest)

        monkeypatch.setattr(pixels, "read_image", failing)

    @pytest.mark.parametrize(
        "error", [OSError(errno.EMFILE, "Too many open files"), PageFile("The paging file is too small")]
    )
    def test_want_of_files_or_memory_leaves_no_image_out(self, snapshot, tmp_path, monkeypatch, error):
        self.fail_to_read(monkeypatch, snapshot, error)
        store, predicted = Store(), []

        def emit(event):
            store.emit(event)
            if isinstance(event, PredictionsReady):
                predicted.append(sorted(event.detections))

        train(parse_config({**CONFIG, "num_workers": 4}), snapshot, tmp_path / "run", RunContext(emit))
        assert predicted[0] == [sample.image_id for sample in snapshot.split("valid")]
        (told,) = [text for text in store.logs if "valid_" in text]
        assert "with 4 threads failed" in told
        assert "from here on 2 threads prepare" in told
        train(parse_config({**CONFIG, "num_workers": 4}), snapshot, tmp_path / "undisturbed")
        assert final_state(tmp_path / "run") == final_state(tmp_path / "undisturbed")

    def test_want_that_lasts_ends_the_run_with_the_name_of_the_image(self, snapshot, tmp_path, monkeypatch):
        self.fail_to_read(monkeypatch, snapshot, OSError(errno.EMFILE, "Too many open files"), 10**6)
        with pytest.raises(UnreadableImage, match=r"valid_\d+\.png\) cannot be read: .*Too many open files"):
            train(parse_config(CONFIG), snapshot, tmp_path / "run")

    def test_switched_off_want_ends_the_run_at_once(self, snapshot, tmp_path, monkeypatch):
        self.fail_to_read(monkeypatch, snapshot, OSError(errno.EMFILE, "Too many open files"))
        with pytest.raises(UnreadableImage):
            train(parse_config({**CONFIG, "fewer_workers_when_reading_fails": False}), snapshot, tmp_path / "run")

    def test_out_of_memory_halves_what_is_predicted_at_a_time_in_whatever_epoch(self, tmp_path, monkeypatch):
        snapshot = tiny_snapshot(tmp_path, num_train=8, num_valid=4)
        train(parse_config(CONFIG), snapshot, tmp_path / "undisturbed")
        sizes, store = self.predict_with(monkeypatch, most=1), Store()
        config = parse_config({**CONFIG, "evaluate_every": 2})
        result = train(config, snapshot, tmp_path / "run", RunContext(store.emit))
        assert (result.state, result.remedies) == ("done", Remedies())
        assert sizes == [1] * 4 * 2
        told = [text for text in store.logs if "Out of memory" in text]
        assert [text.partition(";")[0].partition(": ")[0] for text in told] == [
            "Out of memory in the validation of epoch 2"
        ] * 3
        assert "from here on 4 images at a time are predicted instead of 8" in told[0]
        weights = [load_checkpoint(tmp_path / name / "last.pt").tensors for name in ("run", "undisturbed")]
        assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())

    def test_one_image_too_large_to_predict_ends_with_the_epoch_and_the_last_state(
        self, snapshot, tmp_path, monkeypatch
    ):
        with monkeypatch.context() as patch:
            self.predict_with(patch, most=0)
            with pytest.raises(OutOfMemory, match="in the validation of epoch 1, with 1 at a time; the last state is"):
                train(parse_config(CONFIG), snapshot, tmp_path / "run")
        store = Store()
        train(parse_config(CONFIG), snapshot, tmp_path / "run", RunContext(store.emit))
        assert store.begun[0].step == 2
        train(parse_config(CONFIG), snapshot, tmp_path / "undisturbed")
        assert final_state(tmp_path / "run") == final_state(tmp_path / "undisturbed")

    def test_switched_off_out_of_memory_ends_the_run_at_once(self, snapshot, tmp_path, monkeypatch):
        sizes = self.predict_with(monkeypatch, most=2)
        config = parse_config({**CONFIG, "halve_batch_when_out_of_memory": False})
        with pytest.raises(OutOfMemory, match="in the validation of epoch 1, with 8 at a time"):
            train(config, snapshot, tmp_path / "run")
        assert sizes == []

    def test_unreadable_image_is_told_once_and_counts_with_those_of_the_loader(self, snapshot, tmp_path):
        store = Store()
        snapshot.split("valid")[1].path.write_bytes(b"broken")
        train(parse_config(CONFIG), snapshot, tmp_path / "run", RunContext(store.emit))
        assert len([row for row in store.rows if row[1] == "valid"]) == 3
        (told,) = [text for text in store.logs if "Skipped" in text]
        assert "valid_10.png" in told
        snapshot.split("train")[1].path.write_bytes(b"broken")
        with pytest.raises(DatasetError, match=r"2 images of the dataset cannot be read, the last: .*valid_10\.png"):
            train(parse_config(CONFIG), snapshot, tmp_path / "other")
