"""Resampled figures are those of the resampled set; intervals say what they should where the answer is known."""

import numpy as np
import pytest

from app.pipeline.evaluate.bootstrap import Outcomes, compare_sets, draw_images
from app.pipeline.evaluate.coco_numbers import evaluate
from app.pipeline.evaluate.columns import DetectionColumns, GroundTruth
from app.pipeline.evaluate.selection import selection_score
from app.pipeline.fusion.judging import Judge
from app.pipeline.types import Detections
from tests.pipeline.evaluate.evaluation_cases import make_categories, make_sample, random_case


def repeat_images(truth, detections, drawn):
    """The resampled set itself: every image as often as it was drawn, under new ids."""
    samples, found = [], {}
    for position, times in enumerate(drawn.tolist()):
        rows = truth.image_index == position
        for _ in range(times):
            new_id = len(samples) + 1
            samples.append(make_sample(new_id, truth.boxes[rows], truth.labels[rows], truth.is_crowd[rows]))
            if int(truth.image_ids[position]) in detections:
                found[new_id] = detections[int(truth.image_ids[position])]
    return GroundTruth.from_samples(samples, truth.categories), found


@pytest.mark.parametrize("seed", range(60))
def test_resampled_figures_equal_judging_the_resampled_set(seed):
    """Random cases have crowds, classes without truth, and many equal scores inside an image and across images."""
    truth, detections = random_case(seed)
    outcomes = Outcomes.of(truth, DetectionColumns.from_detections(truth, detections))
    draws = next(draw_images(truth.num_images, 4, seed))
    figures = outcomes.resample(draws).figures
    for row, drawn in enumerate(draws):
        expected = evaluate(*repeat_images(truth, detections, drawn))
        for name, values in figures.items():
            assert values[row] == pytest.approx(selection_score(name, vars(expected)), abs=1e-9), name


def test_every_image_once_gives_the_figures_themselves():
    truth, detections = random_case(17)
    figures = (
        Outcomes.of(truth, DetectionColumns.from_detections(truth, detections))
        .resample(np.ones((1, truth.num_images), np.uint16))
        .figures
    )
    expected = evaluate(truth, detections)
    assert {name: values[0] for name, values in figures.items()} == pytest.approx(
        {name: selection_score(name, vars(expected)) for name in figures}, abs=1e-12
    )


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("threshold", [0.0, 0.35, 1.1], ids=["all", "some", "none"])
def test_f1_at_a_threshold_equals_judging_the_resampled_set_there(seed, threshold):
    truth, detections = random_case(seed)
    outcomes = Outcomes.of(truth, DetectionColumns.from_detections(truth, detections), threshold)
    draws = next(draw_images(truth.num_images, 4, seed))
    figures = outcomes.resample(draws).figures
    for row, drawn in enumerate(draws):
        again, found = repeat_images(truth, detections, drawn)
        expected = Judge(again).judge(DetectionColumns.from_detections(again, found), threshold)
        assert figures["f1"][row] == pytest.approx(expected.f1, abs=1e-9)
        assert figures["map"][row] == pytest.approx(expected.map, abs=1e-9)


def test_draws_come_in_pieces_of_whole_resamples(monkeypatch):
    whole = next(draw_images(7, 10, seed=3))
    monkeypatch.setattr("app.pipeline.evaluate.bootstrap._DRAWS_AT_ONCE", 21)
    pieces = list(draw_images(7, 10, seed=3))
    assert [len(piece) for piece in pieces] == [3, 3, 3, 1]
    assert (np.concatenate(pieces) == whole).all()
    assert (whole.sum(axis=1) == 7).all()


BOX = [0, 0, 10, 10]


def one_box_images(found):
    """Images with one object each; ``found`` says of each whether a set finds it."""
    truth = GroundTruth.from_samples([make_sample(n, [BOX], [1]) for n in range(len(found))], make_categories(1))
    detections = {n: Detections([BOX], [0.9], [1]) for n, is_found in enumerate(found) if is_found}
    return truth, DetectionColumns.from_detections(truth, detections)


def test_a_set_compared_with_itself_differs_by_nothing():
    truth, columns = one_box_images([True, False] * 20)
    for difference in compare_sets(truth, columns, columns, 200).figures.values():
        assert (difference.difference, difference.low, difference.high) == (0, 0, 0)
        assert (difference.share_better, difference.detectable, difference.is_clear) == (0.5, 0, False)


def test_pairing_takes_out_what_both_sets_share():
    """Both find the same half, the second one image more: alone each swings by .1, their difference by .01."""
    first = np.arange(100) % 2 == 0
    second = first.copy()
    second[1] = True
    truth, first_columns = one_box_images(first)
    _, second_columns = one_box_images(second)
    difference = compare_sets(truth, first_columns, second_columns, 1000, seed=1).figures["map50"]
    assert difference.first_high - difference.first_low > 0.15
    assert difference.high - difference.low < 0.05
    assert difference.low >= 0 and difference.share_better > 0.5


def test_the_interval_has_the_width_of_the_binomial_distribution():
    """Recall of one-object images is a mean of coins: its standard error is sqrt(p (1 - p) / n)."""
    truth, nothing = one_box_images([False] * 400)
    _, half = one_box_images([True, False] * 200)
    difference = compare_sets(truth, nothing, half, 2000, seed=2).figures["map50"]
    error = np.sqrt(0.25 / 400)
    assert difference.is_clear
    assert (difference.high - difference.low) / (2 * 1.96 * error) == pytest.approx(1, abs=0.08)
    assert difference.detectable / (2.8016 * error) == pytest.approx(1, abs=0.08)


@pytest.mark.parametrize("seed", range(3))
def test_intervals_of_classes_equal_judging_every_resampled_set_in_full(seed):
    truth, detections = random_case(seed)
    others = {key: Detections(one.boxes + 2.0, one.scores, one.labels) for key, one in detections.items()}
    columns = [DetectionColumns.from_detections(truth, given) for given in (detections, others)]
    compared = compare_sets(truth, *columns, num_resamples=40, seed=seed).ap50
    ap50 = np.full((2, 40, len(truth.categories)), -1.0)
    for row, drawn in enumerate(np.concatenate(list(draw_images(truth.num_images, 40, seed)))):
        for side, given in enumerate((detections, others)):
            judged = evaluate(*repeat_images(truth, given, drawn)).per_class
            ap50[side, row] = [entry["ap50"] for entry in judged]
    assert len(compared) == len(truth.categories)
    for k, item in enumerate(compared):
        first, second = (values[values >= 0] for values in ap50[:, :, k])  # those that draw an image with the class
        assert len(first) == len(second)
        expected = np.percentile(second - first, (2.5, 97.5)) if len(first) else (0, 0)
        assert (item.low, item.high) == pytest.approx(tuple(expected), abs=1e-9)
        for low, high, values in (
            (item.first_low, item.first_high, first),
            (item.second_low, item.second_high, second),
        ):
            assert (low, high) == pytest.approx(tuple(np.percentile(values, (2.5, 97.5)) if len(values) else (-1, -1)))


def test_a_class_in_one_image_is_measured_where_that_is_drawn_and_shows_no_more_than_noise():
    """The second of two classes is in the last of eight images, and only the second set finds it."""
    samples = [make_sample(n, [BOX], [1]) for n in range(7)] + [make_sample(7, [BOX], [2])]
    truth = GroundTruth.from_samples(samples, make_categories(3))
    first = DetectionColumns.from_detections(truth, {n: Detections([BOX], [0.9], [1]) for n in range(7)})
    second = DetectionColumns.from_detections(truth, {7: Detections([BOX], [0.9], [2])})
    common, rare, absent = compare_sets(truth, first, second, 200).ap50
    assert (common.num_images, common.low, common.high, common.outcome) == (7, -1, -1, "worse")
    # Resamples without the image would have pulled the lower end to 0: they are left out.
    assert (rare.num_images, rare.low, rare.high, rare.share_better) == (1, 1, 1, 1)
    assert (rare.outcome, rare.is_clear) == ("noise", False)
    assert (absent.num_images, absent.first, absent.outcome) == (0, -1, None)


def test_the_same_seed_gives_the_same_numbers():
    truth, detections = random_case(2)
    columns = DetectionColumns.from_detections(truth, detections)
    half = DetectionColumns(columns.image_index, columns.boxes + 1.0, columns.scores, columns.labels)
    assert compare_sets(truth, columns, half, 50, seed=5) == compare_sets(truth, columns, half, 50, seed=5)
    assert compare_sets(truth, columns, half, 50, seed=5) != compare_sets(truth, columns, half, 50, seed=6)


def test_progress_is_told_and_what_it_raises_ends_the_work():
    truth, detections = random_case(2)
    columns = DetectionColumns.from_detections(truth, detections)
    heard = []
    compare_sets(truth, columns, columns, 120, on_progress=lambda done, total: heard.append((done, total)))
    assert heard == [(0, 120), (50, 120), (100, 120), (120, 120)]

    def stop(done, total):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        compare_sets(truth, columns, columns, 120, on_progress=stop)
