"""How far work is, on standard error only; and Ctrl+C."""

import io
import json
import re
import sys
import time

import pytest

from app import cli, cli_judging, cli_progress
from app.cli_progress import ProgressLine, in_words
from app.records import Job
from app.services import jobs
from tests.services.review_project import make_review_project


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def job(state="running", **progress):
    empty = {"attempt": 1, "payload": {}, "result": {}, "error": "", "pid": None, "hung": "", "gpu": "", "rank": 1.0}
    times = {"created_at": 1.0, "started_at": None, "ended_at": None, "heartbeat_at": None, "stop_as": ""}
    return Job(id=1, kind="predict", state=state, progress=progress, num_deaths=0, death_step=None, **empty, **times)


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")]
)
def test_times_read_as_on_the_screen(seconds, words):
    assert in_words(seconds) == words


def test_counted_work_tells_its_share_and_what_is_left_by_its_pace(clock):
    line = ProgressLine(clock)
    line.show_count(0, 1000, "measuring the noise")
    assert line.text() == "Measuring the noise: 0 %, 0 s so far"
    clock.now += 2
    line.show_count(250, 1000, "measuring the noise")
    assert line.text() == "Measuring the noise: 25 %, about 6 s left"
    clock.now += 1  # nothing new was told
    assert line.text() == "Measuring the noise: 25 %, about 5 s left"


def test_the_pace_of_one_work_is_not_that_of_the_next(clock):
    line = ProgressLine(clock)
    line.show_part("Judging both", 8)
    line.show_count(0, 1000, "Judging both")  # says less than the guess
    clock.now += 3
    assert line.text() == "Judging both, about 5 s left"
    clock.now += 7
    assert line.text() == "Judging both, 10 s so far"
    line.show_count(0, 1000, "Measuring the noise")
    clock.now += 1
    line.show_count(500, 1000, "Measuring the noise")
    assert line.text() == "Measuring the noise: 50 %, about 1 s left"


def test_jobs_are_told_in_the_words_of_the_screen(clock):
    line = ProgressLine(clock)
    told = []
    for one in (
        job("queued"),
        job(),
        job(done=8, total=40, message="predicting", eta_s=None),
        job(done=0.5, total=1.0, message="Trying WBF", eta_s=75.0),
        job("stopping", done=8, total=40, message="predicting"),
        job("done", done=40, total=40),
    ):
        clock.now += 1
        line.show_job(one)
        told.append(line.text())
    assert told == [
        "Waiting for its turn, 0 s so far",
        "Starting, 0 s so far",
        "Predicting: 20 %, 0 s so far",
        "Trying WBF: 50 %, about 1 min 15 s left",
        "Stopping, 0 s so far",
        "Reading what it made, 0 s so far",
    ]


def show(monkeypatch, stream, seconds):
    monkeypatch.setattr(cli_progress, "SHOW_AFTER_S", 0.02)
    monkeypatch.setattr(cli_progress, "LINE_EVERY_S", 0.01)
    monkeypatch.setattr(cli_progress, "MOVE_EVERY_S", 0.01)
    monkeypatch.setattr(sys, "stderr", stream)
    with ProgressLine() as line:
        line.show_part("Pricing the errors", 30)
        end = time.monotonic() + seconds
        while time.monotonic() < end and not stream.getvalue():
            time.sleep(0.01)
    return stream.getvalue()


def test_a_terminal_has_one_line_that_is_gone_at_the_end(monkeypatch):
    written = show(monkeypatch, Terminal(), 5)
    first, *_, blank, end = written.split("\r")[1:]
    assert re.fullmatch(r"Pricing the errors, about \d+ s left", first)
    assert (blank.strip(), end) == ("", "") and len(blank) >= len(first)


def test_a_file_has_a_line_now_and_then(monkeypatch):
    assert re.fullmatch(r"(Pricing the errors, about \d+ s left\n)+", show(monkeypatch, io.StringIO(), 5))


def test_what_is_over_within_a_second_shows_nothing(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with ProgressLine() as line:
        line.show_part("Judging", 30)
    assert stream.getvalue() == ""


# ---- Ctrl+C ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "ensure_worker", lambda services: None)
    return make_review_project(tmp_path / "projects")


@pytest.fixture
def run(project, tmp_path, capsys):
    def run_command(*words):
        words = [str(word) for word in ("--projects", tmp_path / "projects", *words, "--project", "Blood cells")]
        code = cli.main(words)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run_command


def press_ctrl_c(services, slug, job_id, on_change):
    on_change(jobs.get(services, slug, job_id))
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["sweep", "--run", 1], "The sweep"),
        (["evaluate", "--run", 1, "--split", "test"], "Judging"),
        (["audit", "--run", 1, "--split", "test"], "The audit"),
        (["compare", "--run", 1, "--checkpoint", 2, "--split", "test"], "Comparing"),
        (["ensemble", "--run", 1], "Fusing"),
        (["preflight"], "The check"),
    ],
    ids=lambda words: words[0] if isinstance(words, list) else "",
)
def test_ctrl_c_ends_the_job_that_the_command_began(run, project, monkeypatch, words, what):
    monkeypatch.setattr(jobs, "wait_for", press_ctrl_c)
    code, out, error = run(*words)
    newest = jobs.list_jobs(project.services, project.slug)[0]
    assert (code, out, newest.state) == (1, "", "cancelled")
    assert error.startswith(
        f"error: {what} was stopped from the keyboard, and job {newest.id} ({newest.kind}) with it."
    )
    code, out, error = run(*words, "--json")
    assert (code, error, set(json.loads(out))) == (1, "", {"error", "hint"})


def test_ctrl_c_leaves_a_job_alone_that_was_there_before(run, project, monkeypatch):
    earlier = cli_judging.sweeping.request_sweep(project.services, project.slug, project.run_id, "valid")
    monkeypatch.setattr(jobs, "wait_for", press_ctrl_c)
    code, _, error = run("sweep", "--run", project.run_id)
    assert (code, jobs.get(project.services, project.slug, earlier.id).state) == (1, "queued")
    assert f"job {earlier.id} (sweep) goes on" in error


def test_ctrl_c_in_the_middle_of_the_numbers_is_a_sentence(run, project, monkeypatch):
    def judge(*given, **named):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli_judging.comparing, "judge_pair", judge)
    code, out, error = run("compare", "--checkpoint", 1, "--checkpoint", 2)
    assert (code, out) == (1, "")
    assert error == "error: Comparing was stopped from the keyboard. Nothing half-written is left; it can begin anew.\n"


def test_comparing_tells_of_the_resamples(run, project, monkeypatch):
    told = []
    monkeypatch.setattr(ProgressLine, "show_count", lambda self, *given: told.append(given))
    monkeypatch.setattr(ProgressLine, "show_part", lambda self, *given: told.append(given))
    code, out, error = run("compare", "--checkpoint", 1, "--checkpoint", 2, "--json")
    assert (code, error) == (0, "") and json.loads(out)["verdict"]
    assert told[0][0] == "Judging both" and told[-1] == (1000, 1000, "Measuring the noise")
