"""Loader threads that the machine cannot bear: fewer prepare the same batches, and the log says so."""

import errno
import threading
from dataclasses import dataclass

import pytest
import torch

from app.pipeline.config import parse_config
from app.pipeline.data import pixels
from app.pipeline.data.pixels import ResizedImages
from app.pipeline.train import loader
from app.pipeline.train.loader import TrainLoader
from app.pipeline.train.workers import Workers, WorkersBlocked
from app.pipeline.types import RunContext
from tests.pipeline.train.tiny_dataset import TINY, tiny_snapshot

CONFIG = {**TINY, "num_workers": 4, "augmentation": [{"name": "MixUp", "probability": 0.5}]}


class PageFile(OSError):
    winerror = 1455


@dataclass
class Made:
    pixels: list
    logs: list


@pytest.fixture
def snapshot(tmp_path):
    return tiny_snapshot(tmp_path, num_train=8)


def make(snapshot, num_epochs=2, **changes):
    config, logs = parse_config({**CONFIG, **changes}), []
    images = ResizedImages.for_config(config, budget_bytes=0)
    context = RunContext(lambda event: logs.append(event.text))
    with TrainLoader(snapshot.split("train"), 2, config, images, context) as train_loader:
        return Made([batch.pixels for epoch in range(num_epochs) for batch in train_loader.epoch(epoch + 1)], logs)


def failing(monkeypatch, error, num_times):
    """Reading an image fails so many times."""
    read, failed = pixels.read_image, []

    def read_image(*rest):
        if len(failed) < num_times:
            failed.append(1)
            raise error
        return read(*rest)

    monkeypatch.setattr(pixels, "read_image", read_image)


def assert_same(made, expected):
    assert len(made.pixels) == len(expected.pixels)
    assert all(torch.equal(one, other) for one, other in zip(made.pixels, expected.pixels, strict=True))


@pytest.mark.parametrize(
    "error", [OSError(errno.EMFILE, "Too many open files"), PageFile("The paging file is too small"), MemoryError()]
)
def test_fewer_threads_prepare_the_same_batches(snapshot, monkeypatch, error):
    expected = make(snapshot)
    failing(monkeypatch, error, 1)
    made = make(snapshot)
    assert_same(made, expected)
    (log,) = made.logs
    assert "with 4 threads failed" in log
    assert "from here on 2 threads prepare" in log
    assert not any("Skipped" in text for text in made.logs)


def test_in_the_end_the_training_reads_by_itself_and_then_gives_up(snapshot, monkeypatch):
    failing(monkeypatch, OSError(errno.EMFILE, "Too many open files"), 10_000)
    logs = []
    monkeypatch.setattr(loader.Workers, "_tell", lambda self, *rest: logs.append(self.num))
    with pytest.raises(ValueError, match=r"train_\d\.png\) cannot be read: .*Too many open files"):
        make(snapshot)
    assert logs == [2, 1, 0]


def test_what_fewer_threads_would_not_mend_is_not_tried_again(snapshot, monkeypatch):
    failing(monkeypatch, RuntimeError("a fault of ours"), 1)
    with pytest.raises(RuntimeError, match="a fault of ours"):
        make(snapshot)


def test_switched_off_it_fails(snapshot, monkeypatch):
    failing(monkeypatch, MemoryError(), 1)
    with pytest.raises(MemoryError):
        make(snapshot, fewer_workers_when_reading_fails=False)


def test_blocked_threads_are_left_behind(snapshot, monkeypatch):
    expected = make(snapshot)
    monkeypatch.setattr(loader, "BLOCKED_AFTER_S", 0.2)
    prepare, release = ResizedImages.prepare, threading.Event()

    def blocking(self, image):
        if threading.current_thread() is not threading.main_thread():
            release.wait(60)
        return prepare(self, image)

    monkeypatch.setattr(ResizedImages, "prepare", blocking)
    try:
        made = make(snapshot)
    finally:
        release.set()
    assert_same(made, expected)
    assert len(made.logs) == 1
    assert "the training's own thread prepares them" in made.logs[0]


def test_blocked_threads_end_the_run_in_words_where_fewer_are_not_wanted(snapshot, monkeypatch):
    monkeypatch.setattr(loader, "BLOCKED_AFTER_S", 0.2)
    release = threading.Event()
    monkeypatch.setattr(ResizedImages, "prepare", lambda self, image: release.wait(60))
    try:
        with pytest.raises(WorkersBlocked, match=r"gave nothing for 120 s: look whether the disk .* answers"):
            make(snapshot, fewer_workers_when_reading_fails=False)
        assert [thread for thread in threading.enumerate() if thread.name.startswith("loader")]  # nobody waited
    finally:
        release.set()


def test_threads_can_be_closed_twice():
    workers = Workers(2, RunContext())
    workers.close(wait=False)
    workers.close()
    assert workers.submit(lambda: 1).cancel()  # nobody is left to do it


def test_system_without_threads_to_give(snapshot, monkeypatch):
    expected = make(snapshot)
    start, started = threading.Thread.start, []

    def refuse(thread):
        if thread.name.startswith("loader"):
            started.append(thread)
            if len(started) > 2:
                raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    made = make(snapshot)
    assert_same(made, expected)
    assert any("can't start new thread" in text for text in made.logs)


def test_no_thread_stays_behind(snapshot):
    make(snapshot)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("loader")]
