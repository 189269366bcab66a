"""Starting, finding and stopping the app as a person does, and what the doctor says."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import psutil
import pytest

from app import doctor
from app.api.addresses import is_loopback, link, own_hosts
from app.api.server import can_open_browser
from tests.running_app import REPOSITORY, end_job_processes, start_app, wait_for_link

ONLY_POSIX = pytest.mark.skipif(os.name == "nt", reason="signals as on Linux and macOS")


@pytest.fixture
def start(tmp_path):
    """Start apps on one workspace; all of them are gone at the end."""
    processes = []

    def start(*arguments: str) -> subprocess.Popen:
        processes.append(start_app(tmp_path / "projects", *arguments))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()
    end_job_processes(tmp_path / "projects")


@contextmanager
def let_in(url: str) -> Iterator[httpx.Client]:
    """A client that opened the link as a browser does."""
    with httpx.Client(base_url=url.partition("?")[0]) as client:
        client.get(url).raise_for_status()
        yield client


@pytest.mark.slow
def test_first_page_is_usable_soon_and_needs_the_link(start):
    process = start()
    url = wait_for_link(process)
    with let_in(url) as client:
        assert client.get("/").status_code == 200
    used = psutil.Process(process.pid).cpu_times()
    assert used.user + used.system < 12  # of the processor, where 5 go by on a quiet machine: tests share theirs
    assert httpx.get(url.partition("?")[0]).status_code == 401


@pytest.mark.slow
@ONLY_POSIX
def test_tabs_survive_a_crash_and_the_next_app_takes_over(start):
    first = start()
    url = wait_for_link(first)
    with let_in(url) as client:
        first.kill()
        first.wait()
        port = url.partition("?")[0].rstrip("/").rpartition(":")[2]
        wait_for_link(start("--port", port))
        assert client.get("/").status_code == 200


@pytest.mark.slow
def test_second_app_on_a_workspace_points_to_the_first_and_ends(start):
    first = start()
    url = wait_for_link(first)
    second = start()
    output, _ = second.communicate(timeout=60)
    assert second.returncode == 0
    assert f"process {first.pid}" in output
    fresh = re.search(r"http://\S+", output).group()
    assert fresh.partition("?")[0] == url.partition("?")[0]
    with let_in(fresh) as client:
        assert client.get("/").status_code == 200


@pytest.mark.slow
@ONLY_POSIX
def test_interrupt_ends_the_app_quietly(start):
    process = start()
    wait_for_link(process)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 0


@pytest.mark.slow
def test_taken_port_is_told_in_one_line(start):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = start("--port", str(port))
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert len(output.splitlines()) == 1
    assert str(port) in output
    assert "--port" in output


@pytest.mark.parametrize("port", ["0", "65536", "-1", "http"])
def test_impossible_port_is_bad_use(port):
    command = [sys.executable, "launch.py", "--port", port]
    answer = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert answer.returncode == 2
    assert "port" in answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize(
    ("environment", "platform", "expected"),
    [
        ({"DISPLAY": ":0"}, "linux", True),
        ({"WAYLAND_DISPLAY": "wayland-0"}, "linux", True),
        ({}, "linux", False),  # a server
        ({}, "darwin", True),
        ({}, "win32", True),
        ({"DISPLAY": ":10", "SSH_CONNECTION": "1"}, "linux", False),  # X forwarding: not in front of the person
        ({"SSH_TTY": "/dev/pts/1"}, "darwin", False),
        ({"CI": "true"}, "darwin", False),
    ],
)
def test_browser_opens_only_in_front_of_the_person(environment, platform, expected):
    assert can_open_browser(environment, platform) is expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("localhost", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("192.168.1.2", False),
        ("pc", False),
    ],
)
def test_loopback_is_told_from_the_network(host, expected):
    assert is_loopback(host) is expected


def test_own_hosts_are_whole_and_carry_the_port():
    assert own_hosts("127.0.0.1", 7860) == {"127.0.0.1:7860", "localhost:7860", "[::1]:7860"}
    assert "192.168.1.2:7860" in own_hosts("192.168.1.2", 7860)
    assert f"{socket.gethostname()}:7860".lower() in own_hosts("0.0.0.0", 7860)
    assert {"localhost", "localhost:80"} <= own_hosts("127.0.0.1", 80)  # browsers leave the default port out


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", "http://127.0.0.1:7860/?token=c"),
        ("0.0.0.0", "http://127.0.0.1:7860/?token=c"),
        ("::1", "http://[::1]:7860/?token=c"),
    ],
)
def test_link_can_be_clicked(host, expected):
    assert link(host, 7860, "c") == expected


FINE = {
    "torch": "2.8.0",
    "torchvision": "0.23.0",
    "cuda_build": "12.6",
    "device": "cuda",
    "device_name": "NVIDIA RTX",
    "kernel": "",
    "nms": "",
}
GPU = ["NVIDIA RTX, driver 550.1, 8192 MiB"]


@pytest.mark.parametrize(
    ("changes", "gpus", "system", "is_fine", "part"),
    [
        ({}, GPU, "linux", True, "NVIDIA RTX"),
        ({"device": "cpu", "device_name": "", "cuda_build": ""}, [], "linux", True, "CPU"),
        ({"device": "cpu", "device_name": ""}, [], "linux", True, "CPU"),  # a CUDA build without any GPU works
        ({"device": "mps", "device_name": "", "cuda_build": ""}, [], "darwin", True, "mps"),
        ({"device": "cpu", "cuda_build": ""}, GPU, "win32", False, "--index-url"),
        ({"device": "cpu", "cuda_build": ""}, GPU, "linux", False, "--index-url"),
        ({"device": "cpu"}, GPU, "linux", False, "driver is too old"),
        ({"kernel": "RuntimeError: no kernel image is available"}, GPU, "linux", False, "another build"),
        ({"kernel": "OutOfMemoryError: CUDA out of memory"}, GPU, "linux", False, "memory"),
        ({"kernel": "RuntimeError: CUDA error: unknown"}, GPU, "linux", False, "driver"),
        ({"nms": "RuntimeError: operator torchvision::nms does not exist"}, [], "linux", False, "fit together"),
        ({"kernel": "ArithmeticError: a convolution gave 0", "device": "cpu"}, [], "linux", False, "reinstall"),
    ],
)
def test_doctor_says_in_one_line_what_to_do(changes, gpus, system, is_fine, part):
    verdict = doctor.judge({**FINE, **changes}, gpus, system)
    assert verdict[0] is is_fine
    assert part in verdict[1]
    assert "\n" not in verdict[1]


def test_doctor_tells_a_torch_that_does_not_start():
    is_fine, advice = doctor.judge({"error": "OSError: libcudart.so"}, [], "linux")
    assert not is_fine
    assert "pip install" in advice


@pytest.mark.parametrize(
    ("error", "part"),
    [
        (ImportError("libGL.so.1: cannot open shared object file: No such file or directory"), "libgl1"),
        (ImportError("libgthread-2.0.so.0: cannot open shared object file"), "libglib2.0-0"),
        (ModuleNotFoundError("No module named 'gradio'", name="gradio"), "'gradio'"),
        (ImportError("DLL load failed while importing cv2"), "DLL load failed"),
    ],
)
def test_import_error_is_one_clear_sentence(error, part):
    sentence = doctor.explain_import_error(error)
    assert part in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize("command", [["launch.py", "--no-browser"], ["-m", "app", "runs", "--project", "x"]])
def test_server_without_libgl_is_told_so_in_one_line(tmp_path, command):
    (tmp_path / "cv2").mkdir()
    (tmp_path / "cv2" / "__init__.py").write_text(
        "raise ImportError('libGL.so.1: cannot open shared object file: No such file or directory', name='cv2')"
    )
    answer = subprocess.run(
        [sys.executable, *command],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert answer.returncode == 1
    assert len(answer.stderr.splitlines()) == 1
    assert "libGL" in answer.stderr


def test_fault_of_our_own_is_not_blamed_on_the_installation():
    with pytest.raises(ModuleNotFoundError):
        doctor.explain_import_error(ModuleNotFoundError("No module named 'app.x'", name="app.x"))


@pytest.mark.slow
def test_doctor_runs_a_kernel_and_nms_in_a_process_of_its_own():
    answer = subprocess.run(
        [sys.executable, "launch.py", "--doctor"], cwd=REPOSITORY, capture_output=True, text=True, timeout=300
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    for name in ("System:", "Python:", "Memory:", "GPU:", "Torch:", "Device:"):
        assert name in answer.stdout
    assert re.search(r"Kernel:\s+right", answer.stdout)
    assert re.search(r"NMS:\s+right", answer.stdout)
