"""Pixels kept between runs: the same to the bit as freshly read ones, whatever happens to the files."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections import namedtuple
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image as PillowImage

from app.pipeline.data import pixel_files, pixels
from app.pipeline.data.image import Window
from app.pipeline.data.pixel_files import PixelFiles
from app.pipeline.data.pixels import ResizedImages
from app.pipeline.data.snapshot import Sample

NO_BOXES = (np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros(0, bool))


def picture(seed: int = 0, height: int = 53, width: int = 71) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def sample_of(path: Path, rotation: int = 0) -> Sample:
    height, width = cv2.imread(str(path)).shape[:2]
    return Sample(
        1, path, path.name, "train", width, height, rotation, *NO_BOXES, sha256(path.read_bytes()).hexdigest()
    )


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def images_with(folder: Path, size: int = 64, **options) -> ResizedImages:
    return ResizedImages(size, 0, files=PixelFiles(folder), **options)


@pytest.mark.parametrize("ending", ["jpg", "png"])
@pytest.mark.parametrize("resize", ["longest", "letterbox", "stretch", "as_is"])
def test_kept_pixels_equal_freshly_read_ones_in_a_second_run(tmp_path, ending, resize):
    path = tmp_path / f"odd.{ending}"
    cv2.imwrite(str(path), picture())
    sample = sample_of(path)
    fresh = ResizedImages(64, 0, resize=resize).read(sample)
    images_with(tmp_path / "kept", resize=resize).read(sample)
    path.unlink()
    np.testing.assert_array_equal(images_with(tmp_path / "kept", resize=resize).read(sample), fresh)


def test_another_rotation_window_size_mode_or_file_is_another_key(tmp_path):
    path = tmp_path / "gray.png"
    PillowImage.fromarray(picture()[..., 0]).save(path)
    sample = sample_of(path)
    looks = [
        (sample, {}),
        (replace(sample, rotation=90), {}),
        (replace(sample, rotation=180), {}),
        (sample, {"window": Window(100.0, 50.0)}),
        (sample, {"window": Window(100.0, 50.000001)}),
        (sample, {"size": 96}),
        (sample, {"resize": "stretch"}),
    ]
    for number, (one, options) in enumerate(looks, start=1):
        fresh = ResizedImages(**{"image_size": options.get("size", 64), "budget_bytes": 0, **_without_size(options)})
        for _ in range(2):
            kept = images_with(tmp_path / "kept", **options).read(one)
            np.testing.assert_array_equal(kept, fresh.read(one))
        assert len(files_in(tmp_path / "kept")) == number


def _without_size(options):
    return {name: value for name, value in options.items() if name != "size"}


def test_code_that_makes_other_pixels_does_not_find_the_old_ones(tmp_path, monkeypatch):
    cv2.imwrite(str(tmp_path / "a.png"), picture())
    images_with(tmp_path / "kept").read(sample_of(tmp_path / "a.png"))
    pixels._makers.cache_clear()
    monkeypatch.setattr(pixels.PIL, "__version__", "999")
    images_with(tmp_path / "kept").read(sample_of(tmp_path / "a.png"))
    pixels._makers.cache_clear()
    assert len(files_in(tmp_path / "kept")) == 2


def test_file_whose_contents_are_not_those_of_its_hash_is_never_kept(tmp_path):
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), picture())
    sample = sample_of(path)
    cv2.imwrite(str(path), picture(seed=1))
    images_with(tmp_path / "kept").read(sample)
    assert files_in(tmp_path / "kept") == []


def cut(path):
    path.write_bytes(path.read_bytes()[:-8])


def empty(path):
    path.write_bytes(b"")


def lose_a_page(path):
    """As after a power cut: the length is right, a page was never written."""
    data = bytearray(path.read_bytes())
    data[4096:8192] = bytes(4096)
    path.write_bytes(data)


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[5000] ^= 4
    path.write_bytes(data)


def lengthen(path):
    path.write_bytes(path.read_bytes() + b"1")


@pytest.mark.parametrize("damage", [cut, empty, lose_a_page, flip_a_bit, lengthen])
def test_damaged_file_is_made_again(tmp_path, damage):
    cv2.imwrite(str(tmp_path / "a.png"), picture())
    sample = sample_of(tmp_path / "a.png")
    fresh = images_with(tmp_path / "kept").read(sample)
    (path,) = files_in(tmp_path / "kept")
    whole = path.read_bytes()
    damage(path)
    np.testing.assert_array_equal(images_with(tmp_path / "kept").read(sample), fresh)
    assert path.read_bytes() == whole


def test_full_disk_costs_no_image_and_ends_the_keeping(tmp_path, monkeypatch, caplog):
    def refuse(path, data):
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    files = PixelFiles(tmp_path / "kept")
    files.put("a", picture())
    files.put("b", picture())
    assert files_in(tmp_path / "kept") == []
    assert [record.getMessage().count("no more pixels are kept") for record in caplog.records] == [1]


def test_the_longest_unused_goes_first_and_what_this_run_uses_stays(tmp_path):
    num_bytes = pixel_files._pack(picture()).nbytes
    before = PixelFiles(tmp_path, budget_bytes=3 * num_bytes)
    for key in "abc":
        before.put(key, picture())
    for age, key in enumerate("cab"):  # c was used last, b first
        used_at = time.time() - 100 - age
        os.utime(tmp_path / f"{key}.px", (used_at, used_at))
    now = PixelFiles(tmp_path, budget_bytes=3 * num_bytes)
    assert now.get("b") is not None
    now.put("d", picture())
    assert [path.stem for path in files_in(tmp_path)] == ["b", "c", "d"]
    now.put("e", picture())
    assert [path.stem for path in files_in(tmp_path)] == ["b", "d", "e"]
    now.put("f", picture())
    assert [path.stem for path in files_in(tmp_path)] == ["b", "d", "e"]


def test_default_budget_is_a_quarter_of_the_free_disk_with_its_own_files(tmp_path, monkeypatch):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(pixel_files.shutil, "disk_usage", lambda folder: usage(4 * 12_000 - 12_000))
    first = PixelFiles(tmp_path / "not" / "yet")
    for key in "abc":
        first.put(key, picture())  # 11,321 bytes each: the budget is 9,000 while nothing lies there
    assert files_in(tmp_path) == []
    monkeypatch.setattr(pixel_files.shutil, "disk_usage", lambda folder: usage(4 * 12_000))
    second = PixelFiles(tmp_path / "not" / "yet")
    for key in "abc":
        second.put(key, picture())
    assert len(files_in(tmp_path)) == 1


WRITER = """
import sys, numpy as np
from pathlib import Path
from app.pipeline.data.pixel_files import PixelFiles
files = PixelFiles(Path(sys.argv[1]))
image = np.full((900, 900, 3), 7, np.uint8)
image[::2] = 9
print("on", flush=True)
while True:
    for number in range(40):
        files.put(f"x/{number}", image)
"""


def test_killed_in_the_middle_and_two_at_once_leave_whole_files_or_none(tmp_path):
    expected = np.full((900, 900, 3), 7, np.uint8)
    expected[::2] = 9
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE) for _ in range(2)
    ]
    for writer in writers:
        writer.stdout.readline()
    reader, num_read, until = PixelFiles(tmp_path), 0, time.monotonic() + 60
    while num_read < 20 and time.monotonic() < until:
        image = reader.get(f"x/{num_read % 40}")
        if image is None:
            time.sleep(0.01)
            continue
        np.testing.assert_array_equal(image, expected)
        num_read += 1
    for writer in writers:
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
    assert num_read == 20
    for path in tmp_path.rglob("*.px"):
        np.testing.assert_array_equal(reader.get(f"x/{path.stem}"), expected)


def test_what_a_killed_process_left_half_written_is_cleared_away(tmp_path):
    (tmp_path / ".a.px.1234.tmp").write_bytes(b"half")
    (tmp_path / ".b.px.1234.tmp").write_bytes(b"another process is at it")
    long_ago = time.time() - 2 * pixel_files.STALE_AFTER_S
    os.utime(tmp_path / ".a.px.1234.tmp", (long_ago, long_ago))
    PixelFiles(tmp_path).put("c", picture())
    assert [path.name for path in files_in(tmp_path)] == [".b.px.1234.tmp", "c.px"]


def test_threads_read_and_write_at_once(tmp_path):
    files, wrong = PixelFiles(tmp_path), []

    def work(number):
        for round_ in range(30):
            key = str((number + round_) % 10)
            files.put(key, picture(seed=int(key)))
            kept = files.get(key)
            if kept is not None and not np.array_equal(kept, picture(seed=int(key))):
                wrong.append(key)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
