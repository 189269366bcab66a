"""The warm helper answers, survives what it runs, and ends with its parent."""

import subprocess
import sys
import threading

import psutil
import pytest

from app.errors import UserError
from app.jobs.helper import HelperFailed, WarmHelper

THIS = "tests.jobs.helper_targets"


@pytest.fixture(scope="module")
def helper():
    helper = WarmHelper(warm_up=f"{THIS}:warm_up")
    yield helper
    helper.close()


def test_call_runs_in_another_process(helper):
    assert helper.call(f"{THIS}:add", a=2, b=3) == 5
    assert helper.state == "ready"
    assert helper.call(f"{THIS}:process_id") == helper.pid


def test_what_a_function_prints_does_not_mix_with_answers(helper):
    assert helper.call(f"{THIS}:print_and_return", text="noise\n" * 1000) == "done"


@pytest.mark.parametrize(
    ("kind", "expected", "said"),
    [
        ("value", ValueError, "bad value"),  # a child class of ValueError arrives as a plain one
        ("file", OSError, "gone"),
        ("user", UserError, "for the user"),
        ("other", RuntimeError, "ZeroDivisionError"),
    ],
)
def test_errors_come_back_and_the_process_stays(helper, kind, expected, said):
    before = helper.call(f"{THIS}:process_id")
    with pytest.raises(expected, match=said):
        helper.call(f"{THIS}:fail", kind=kind)
    assert helper.call(f"{THIS}:process_id") == before


def test_dead_process_is_started_again(helper):
    before = helper.call(f"{THIS}:process_id")
    psutil.Process(before).kill()
    psutil.wait_procs([psutil.Process(before)] if psutil.pid_exists(before) else [], timeout=5)
    assert helper.call(f"{THIS}:process_id") != before


def test_function_that_kills_the_process_is_an_error_after_one_more_try(helper):
    with pytest.raises(HelperFailed, match="died"):
        helper.call(f"{THIS}:die")
    assert helper.call(f"{THIS}:add", a=1, b=1) == 2


def test_function_that_hangs_is_given_up(helper):
    helper.call(f"{THIS}:add", a=1, b=1)
    with pytest.raises(HelperFailed, match="did not answer within 0.2 s"):
        helper.call(f"{THIS}:hang", timeout_s=0.2)
    assert helper.call(f"{THIS}:add", a=1, b=1) == 2


def test_calls_of_several_threads_each_get_their_own_answer(helper):
    answers = {}

    def ask(number):
        answers[number] = helper.call(f"{THIS}:add", a=number, b=0)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {number: number for number in range(20)}


def test_closed_helper_refuses_calls_and_its_process_is_gone():
    helper = WarmHelper(warm_up=f"{THIS}:warm_up")
    process = psutil.Process(helper.call(f"{THIS}:process_id"))
    helper.close()
    process.wait(timeout=5)
    with pytest.raises(HelperFailed, match="shutting down"):
        helper.call(f"{THIS}:add", a=1, b=1)


def test_helper_ends_when_its_parent_is_killed():
    code = (
        "from app.jobs.helper import WarmHelper; import sys, time;"
        f"print(WarmHelper('{THIS}:warm_up').call('{THIS}:process_id'), flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    child = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    child.wait(timeout=10)


def test_web_side_of_the_helper_loads_neither_torch_nor_albumentations():
    code = (
        "import sys, app.services.augmenting, app.api.routes.augment;"
        "sys.exit(any(name in sys.modules for name in ('torch', 'albumentations')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
