"""The chain keeps boxes and labels valid and together, and repeats exactly."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from app.pipeline.augment.catalogue import CATALOGUE, Step
from app.pipeline.augment.chain import Chain
from app.pipeline.augment.mixing import MIXERS, Partner, Partners
from app.pipeline.augment.presets import PRESETS
from app.pipeline.augment.transforms import BUILDERS
from app.pipeline.augment.visibility import hide_boxes

NUM_DRAWS = 1000
SIZE = np.array([64, 48])
EDGE_BOXES = np.array([[0, 0, 1, 1], [63.2, 47.1, 64, 48], [0, 0, 64, 48]], float)  # corners and the whole image


def strongest(name):
    """The step at full strength and probability."""
    return Step(name=name, probability=1, strength={slider.name: slider.max for slider in CATALOGUE[name].sliders})


# Of each transform half of the draws at its defaults, half at full strength.
CHAINS = (
    {name: ((Step(name=name, probability=1),), (strongest(name),)) for name in CATALOGUE}
    | {f"preset {name}": (preset.steps,) for name, preset in PRESETS.items()}
    | {"everything": (tuple(Step(name=name, probability=0.5) for name in CATALOGUE),)}
    | {"everything, always, strongest": (tuple(strongest(name) for name in CATALOGUE),)}
)


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)


def random_boxes(rng, width=64, height=48):
    count = rng.integers(0, 6)
    corners = rng.uniform(0, 1, (count, 2, 2)) * [width, height]
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 0.01)
    return np.concatenate([boxes, EDGE_BOXES[rng.integers(0, 2, len(EDGE_BOXES)).astype(bool)]])


def make_partners(seed=2):
    """Images of other shapes, one of them without boxes and one that cannot be read, with labels from 101."""
    rng, made = np.random.default_rng(seed), []
    for width, height in ((64, 48), (48, 64), (20, 48), (90, 70)):
        pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
        corners = np.sort(rng.uniform(0, 1, (3, 2, 2)) * [width, height], axis=1).reshape(3, 4)
        made.append(Partner(pixels, corners, 101 + np.arange(3)))
    made.append(Partner(made[0].image, np.zeros((0, 4)), np.zeros(0, np.int64)))
    made.append(None)
    return Partners(len(made), made.__getitem__)


PARTNERS = make_partners()


@pytest.mark.filterwarnings("error")  # a division by zero is an invalid box in the making
@pytest.mark.parametrize("chains", CHAINS.values(), ids=CHAINS.keys())
def test_thousand_draws_give_no_invalid_box_and_labels_follow(chains, image):
    built, rng = [Chain.build(steps) for steps in chains], np.random.default_rng(1)
    before = image.copy()
    pool = [(boxes, rng.integers(1, 4, len(boxes))) for boxes in (random_boxes(rng) for _ in range(61))]
    for draw in range(NUM_DRAWS if chains[0] != CHAINS["everything"][0] and len(chains[0]) < 15 else NUM_DRAWS // 10):
        boxes, labels = pool[draw % len(pool)]
        chain = built[draw % len(built)]
        result = chain.apply(image, boxes, labels, seed=7, epoch=draw, image_id=3, partners=PARTNERS)
        own = result.kept >= 0
        assert (result.image.shape, result.image.dtype) == (image.shape, np.uint8)
        assert len(result.boxes) == len(result.kept) == len(result.labels)
        assert result.boxes.min(initial=0) >= 0  # false for NaN too
        assert (result.boxes[:, 2:] <= SIZE).all()
        assert (result.boxes[:, 2:] - result.boxes[:, :2]).min(initial=1) >= 0.999
        assert (np.diff(result.kept[own]) > 0).all()
        assert (result.labels[own] == labels[result.kept[own]]).all()
        assert (result.labels[~own] > 100).all()
        assert result.num_lost == len(boxes) - own.sum()
    assert (image == before).all()


def test_every_entry_has_one_builder():
    assert sorted([*BUILDERS, *MIXERS]) == sorted(CATALOGUE)


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_every_transform_changes_the_image_at_probability_one(name, image):
    large = np.kron(image, np.ones((4, 4, 1), np.uint8))  # gravel puts nothing on tiny images
    boxes = np.array([[100, 80, 160, 120.0]])
    chain = Chain.build([strongest(name)])
    results = [chain.apply(large, boxes, [1], seed=0, epoch=epoch, image_id=1, partners=PARTNERS) for epoch in range(8)]
    assert any((result.image != large).any() for result in results)


@pytest.mark.parametrize("name", ["HorizontalFlip", "VerticalFlip"])
def test_flips_move_the_box_with_its_pixels(name):
    image = np.zeros((40, 60, 3), np.uint8)
    image[4:10, 6:20] = 255
    result = Chain.build([Step(name=name, probability=1)]).apply(
        image, np.array([[6, 4, 20, 10.0]]), [1], seed=0, epoch=0, image_id=0
    )
    rows, columns = np.nonzero(result.image[..., 0])
    np.testing.assert_allclose(
        result.boxes[0], [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], atol=1e-3
    )


def test_crop_keeps_every_box_whole_and_on_its_pixels():
    image = np.zeros((96, 128, 3), np.uint8)
    image[30:60, 40:90] = 255
    chain = Chain.build([Step(name="BBoxSafeRandomCrop", probability=1)])
    sizes = set()
    for epoch in range(50):
        result = chain.apply(image, np.array([[40, 30, 90, 60.0]]), [1], seed=0, epoch=epoch, image_id=0)
        rows, columns = np.nonzero(result.image[..., 0] > 127)
        drawn = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(result.boxes[0], drawn, atol=1.01)
        sizes.add(round(float(result.boxes[0, 2] - result.boxes[0, 0])))
    assert len(sizes) > 10


def test_same_seed_epoch_and_image_repeat_exactly(image):
    steps = [Step(name=name, probability=0.5) for name in CATALOGUE]
    boxes, labels = np.array([[5, 5, 30, 30], [20, 10, 60, 40.0]]), np.array([1, 2])
    first, second = Chain.build(steps), Chain.build(steps)
    for epoch in range(30):
        where = {"epoch": epoch, "image_id": 9, "partners": PARTNERS}
        one = first.apply(image, boxes, labels, seed=1, **where)
        first.apply(image, boxes, labels, seed=99, **where)  # other images in between change nothing
        two = second.apply(image, boxes, labels, seed=1, **where)
        assert (one.image == two.image).all()
        assert (one.boxes == two.boxes).all()
        assert (one.kept == two.kept).all()


@pytest.mark.parametrize("changed", [{"seed": 2}, {"epoch": 1}, {"image_id": 10}])
def test_another_seed_epoch_or_image_gives_another_result(changed, image):
    chain = Chain.build([Step(name="RGBShift", probability=1)])
    base = {"seed": 1, "epoch": 0, "image_id": 9}
    one = chain.apply(image, np.zeros((0, 4)), [], **base)
    two = chain.apply(image, np.zeros((0, 4)), [], **(base | changed))
    assert (one.image != two.image).any()


def test_threads_and_pickled_copies_give_the_same_as_one_thread(image):
    chain = Chain.build(PRESETS["backbones"].steps)
    boxes, labels = np.array([[5, 5, 30, 30.0]]), np.array([1])

    def draw(epoch, of=chain):
        return of.apply(image, boxes, labels, seed=1, epoch=epoch, image_id=1).image.tobytes()

    alone = [draw(epoch) for epoch in range(100)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(draw, range(100))) == alone
    copy = pickle.loads(pickle.dumps(chain))
    assert [draw(epoch, copy) for epoch in range(5)] == alone[:5]


def test_steps_throw_their_own_dice(image):
    """With one seed for all, two flips at one half fire together always."""
    chain = Chain.build([Step(name="HorizontalFlip"), Step(name="VerticalFlip")])
    outcomes = {
        chain.apply(image, np.zeros((0, 4)), [], seed=0, epoch=e, image_id=0).image.tobytes() for e in range(40)
    }
    assert len(outcomes) == 4


def test_probability_is_met(image):
    chain = Chain.build([Step(name="HorizontalFlip", probability=0.3)])
    fired = [
        chain.apply(image, np.zeros((0, 4)), [], seed=5, epoch=0, image_id=n).image is not image for n in range(2000)
    ]
    assert 0.26 < np.mean(fired) < 0.34


def test_changing_one_step_leaves_the_dice_of_the_others(image):
    boxes, labels = np.array([[10, 10, 30, 30.0]]), [1]
    blur, flip = Step(name="GaussianBlur", probability=0.5), Step(name="HorizontalFlip", probability=0.5)
    for epoch in range(20):
        where = {"seed": 0, "epoch": epoch, "image_id": 0}
        alone = Chain.build([flip]).apply(image, boxes, labels, **where)
        behind = Chain.build([blur, flip]).apply(image, boxes, labels, **where)
        assert (alone.boxes == behind.boxes).all()


def test_strong_steps_happen_less_with_their_share_and_the_others_as_before(image):
    """The dice stay the same, so that what fires at a lower share is part of what fires at a higher one."""
    chain = Chain.build([Step(name="CoarseDropout", probability=0.8)])
    mild = Chain.build([Step(name="HorizontalFlip", probability=0.8)])

    def fired(of, share):
        where = {"seed": 0, "epoch": 0, "strong_share": share}
        return {n for n in range(400) if of.apply(image, np.zeros((0, 4)), [], image_id=n, **where).image is not image}

    full, half = fired(chain, 1.0), fired(chain, 0.5)
    assert half < full
    assert 0.34 < len(half) / 400 < 0.46
    assert fired(chain, 0.0) == set()
    assert fired(mild, 0.0) == fired(mild, 1.0)


def test_steps_that_mix_images_do_nothing_without_others(image):
    for name in MIXERS:
        for partners in (None, Partners(0, PARTNERS.read), Partners(1, lambda index: None)):
            result = Chain.build([strongest(name)]).apply(
                image, np.array([[5, 5, 30, 30.0]]), [1], seed=0, epoch=0, image_id=0, partners=partners
            )
            assert result.image is image
            assert result.labels.tolist() == [1]


def test_disabled_steps_and_zero_probability_are_skipped(image):
    chain = Chain.build([Step(name="ToGray", probability=1, is_enabled=False), Step(name="ToGray", probability=0)])
    result = chain.apply(image, np.zeros((0, 4)), [], seed=0, epoch=0, image_id=0)
    assert result.image is image


def test_both_blurs_of_the_group_are_picked(image):
    chain = Chain.build([Step(name="OneOfBlurs", probability=1, strength={"sigma": 8, "kernel": 3})])
    spread = [chain.apply(image, np.zeros((0, 4)), [], seed=0, epoch=e, image_id=0).image.std() for e in range(40)]
    assert min(spread) < 0.5 * max(spread)


def test_read_only_images_can_be_augmented(image):
    frozen = image.copy()
    frozen.flags.writeable = False
    for name in CATALOGUE:
        Chain.build([strongest(name)]).apply(
            frozen, np.array([[5, 5, 30, 30.0]]), [1], seed=0, epoch=0, image_id=0, partners=PARTNERS
        )


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (7, 3), (20, 333)])
def test_odd_sizes_survive_every_transform(shape):
    image = np.full((*shape, 3), 100, np.uint8)
    box = np.array([[0, 0, shape[1], shape[0]]], float)
    for name in CATALOGUE:
        for epoch in range(6):
            result = Chain.build([strongest(name)]).apply(
                image, box, [1], seed=0, epoch=epoch, image_id=0, partners=PARTNERS
            )
            assert result.image.shape == image.shape, name


def test_boxes_outside_or_too_small_are_lost_with_their_labels(image):
    boxes = np.array([[70, 5, 90, 20], [10, 10, 10.5, 40], [-5, -5, 20, 20], [1, 1, 3, 3]], float)
    result = Chain.build([]).apply(image, boxes, [1, 2, 3, 4], seed=0, epoch=0, image_id=0)
    assert result.labels.tolist() == [3, 4]
    assert result.boxes.tolist() == [[0, 0, 20, 20], [1, 1, 3, 3]]
    assert result.num_lost == 2


@pytest.mark.parametrize(
    ("image", "boxes", "labels", "said"),
    [
        (np.zeros((4, 4, 3), np.uint8), [[0, 0, 2, 2]], [1, 2], "one length, got 1 and 2"),
        (np.zeros((4, 4, 3), np.float32), [], [], "uint8"),  # 0..1 floats would come out black
        (np.zeros((4, 4), np.uint8), [], [], "uint8"),  # one channel
        (np.zeros((4, 4, 3), np.uint8), [[0, 0, np.nan, 2]], [1], "finite"),
    ],
)
def test_wrong_input_is_refused(image, boxes, labels, said):
    with pytest.raises(ValueError, match=said):
        Chain.build([]).apply(image, boxes, labels, seed=0, epoch=0, image_id=0)


def test_holes_shrink_hide_and_spare_boxes():
    boxes = np.array([[2.5, 2.5, 7.5, 7.5, 0], [20.25, 2, 30.75, 12, 1], [40, 2, 50, 12, 2], [2, 20, 12, 22, 3]])
    holes = np.array([[0, 0, 10, 10], [20, 0, 25, 20], [41, 3, 49, 11]])
    result = hide_boxes(boxes, holes, 64, 48)
    assert result.tolist() == [
        [25, 2, 30.75, 12, 1],  # its left part is hidden
        [40, 2, 50, 12, 2],  # a hole inside does not shrink it
        [2, 20, 12, 22, 3],  # untouched, to the last digit; the first box is hidden and lost
    ]
