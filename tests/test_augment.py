"""Augmentation: what it does to pixels, where it must not be done, and that runs with the older kinds stay as they are."""

import numpy as np
import pytest

from vlax.data.batches import augment
from vlax.errors import VlaxError
from vlax.rows import Row, Turn

IMAGE = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
NOISE = np.random.default_rng(0).integers(0, 256, (24, 18, 3)).astype(np.uint8)
# Draws that leave a picture alone under every kind: no flip, no shift, the whole area at its own aspect, factors of 1.
STILL = np.array([0.9, 0.5, 0.5, 1.0, 0.5, 0.3, 0.7, 0.5, 0.5, 0.5])


def row(question, answer="yes", *later):
    return Row("r", "i", "question", (Turn(question, answer), *later), None)


def draws(**values):
    """STILL with other numbers at the places of DRAWS."""
    out = STILL.copy()
    names = ("flip", "down", "right", "area", "aspect", "crop_down", "crop_right", "brightness", "contrast", "saturation")
    for name, value in values.items():
        out[names.index(name)] = value
    return out


@pytest.mark.parametrize(("draw", "flipped"), ((0.4, True), (0.6, False)))
def test_flip(draw, flipped):
    out = augment.apply(IMAGE, row("is it red?"), ("flip",), draws(flip=draw))
    np.testing.assert_array_equal(out, IMAGE[:, ::-1] if flipped else IMAGE)


@pytest.mark.parametrize("asked", (
    "is it left of the box?", "what is on the RIGHT?", "where is it, left?", "is he left-handed?", "what is leftmost?",
    "which is in the top-left corner?", "the upper_right one?", "does it lean rightwards?", "is it all right?", "topright?",
    "is it upright?", "the man's left?",
))  # fmt: skip
def test_never_flipped_nor_cropped_where_the_text_names_a_side(asked):
    assert augment.speaks_of(row(asked), augment.SIDES)
    np.testing.assert_array_equal(augment.apply(IMAGE, row(asked), ("flip", "crop"), np.zeros(augment.DRAWS)), IMAGE)


def test_sides_in_answers_and_later_turns_count_and_bright_is_no_side():
    assert augment.speaks_of(row("where is it?", "top left."), augment.SIDES)
    assert augment.speaks_of(row("is it red?", "no", Turn("where is it?", "on the right")), augment.SIDES)
    for asked in ("is it bright?", "a fright", "the cartwright", "the brightest light"):
        assert not augment.speaks_of(row(asked), augment.SIDES)


@pytest.mark.parametrize("text", (
    "how many dogs are there?", "How much of it is red?", "what is the number of cats?", "count the boxes", "two dogs run",
    "3 dogs run", "a dozen eggs", "a pair of shoes", "is there a cat?", "Are there any dogs", "both boys",
    "several people",
))  # fmt: skip
def test_never_cropped_where_the_text_counts(text):
    assert augment.speaks_of(row(text), augment.COUNTS) and augment.speaks_of(row("what?", text), augment.COUNTS)
    np.testing.assert_array_equal(augment.apply(IMAGE, row(text), ("crop",), np.zeros(augment.DRAWS)), IMAGE)
    assert not augment.speaks_of(row("a dog on the country road", "the account of a discounted lone phone"), augment.COUNTS)


@pytest.mark.parametrize("text", (
    "a cat at the top", "what is in the corner?", "the lower shelf", "an apple in the middle", "at the picture's edge",
    "a red circle in the center", "the bottom row",
))  # fmt: skip
def test_never_cropped_where_the_text_says_where_things_are(text):
    assert augment.speaks_of(row(text), augment.PLACES)
    np.testing.assert_array_equal(augment.apply(IMAGE, row(text), ("crop",), np.zeros(augment.DRAWS)), IMAGE)
    assert not augment.speaks_of(row("a laptop and a knowledgeable boarder", "flowers"), augment.PLACES)


def test_shift_repeats_the_border():
    down_right = augment.apply(IMAGE, row("?"), ("shift",), draws(down=0.0, right=0.0))  # reach 1: from the far corner
    np.testing.assert_array_equal(down_right[1:, 1:], IMAGE[:-1, :-1])
    np.testing.assert_array_equal(down_right[0, 1:], IMAGE[0, :-1])


def test_flip_and_shift_take_the_first_three_draws():
    """As when there were no others, which a generator draws before any further ones."""
    drawn = np.random.default_rng([0, 3, 17]).random(augment.DRAWS)
    np.testing.assert_array_equal(drawn[:3], np.random.default_rng([0, 3, 17]).random(3))
    for kinds in (("flip",), ("shift",), ("flip", "shift")):
        short, whole = (augment.apply(NOISE, row("?"), kinds, d) for d in (drawn[:3], drawn))
        np.testing.assert_array_equal(short, whole)


def test_draws_that_leave_a_picture_as_it_is():
    for picture in (IMAGE, NOISE):
        np.testing.assert_array_equal(augment.apply(picture, row("?"), augment.KINDS, STILL), picture)


@pytest.mark.parametrize("kind", augment.KINDS)
def test_shape_type_and_source_stay_for_any_draws(kind):
    before = NOISE.copy()
    assert len(STILL) == augment.DRAWS
    corners = [np.full(augment.DRAWS, value) for value in (0.0, 1.0 - 2**-53)]
    changed = 0
    for draw in (*corners, *np.random.default_rng(1).random((60, augment.DRAWS))):
        out = augment.apply(NOISE, row("?"), (kind,), draw)
        assert out.shape == NOISE.shape and out.dtype == np.uint8
        np.testing.assert_array_equal(out, augment.apply(NOISE, row("?"), (kind,), draw))
        changed += (out != NOISE).any()
    np.testing.assert_array_equal(NOISE, before)
    assert changed > 20


def test_the_part_that_a_crop_keeps():
    """Inside the picture, of a share and an aspect within the limits, and anywhere in it."""
    boxes = np.array([augment.crop_box(60, 60, *d) for d in np.random.default_rng(2).random((2000, 4))])
    left, upper, right, lower = boxes.T
    assert (boxes >= 0).all() and (right <= 60).all() and (lower <= 60).all()
    share, aspect = (right - left) * (lower - upper) / 3600, (right - left) / (lower - upper)
    assert 0.4999 < share.min() < 0.52 and 0.97 < share.max() <= 1
    assert aspect.min() > 0.7499 and aspect.max() < 1.3334 and abs(np.log(aspect).mean()) < 0.02
    assert left.max() > 15 and upper.max() > 15 and left.min() < 0.1 and upper.min() < 0.1
    assert augment.crop_box(60, 60, 1.0, 0.5, 0.2, 0.9) == (0, 0, 60, 60)
    np.testing.assert_allclose(augment.crop_box(100, 200, 0.0, 0.5, 1.0, 0.0), (0, 100 - 50 * 2**0.5, 100 * 2**0.5, 100))


def test_crop_shows_the_part_that_it_names():
    ramp = np.repeat(np.repeat(np.arange(64, dtype=np.uint8)[None, :, None], 64, 0), 3, 2) * 4
    box = augment.crop_box(64, 64, 0.0, 0.5, 0.0, 1.0)
    out = augment.crop(ramp, 0.0, 0.5, 0.0, 1.0).astype(int)
    assert abs(out[:, 0].mean() - 4 * box[0]) < 4 and abs(out[:, -1].mean() - 4 * 63) < 4
    assert (np.diff(out[0, :, 0]) >= 0).all()


def test_colour_is_clipped_and_does_not_wrap():
    white, black = np.full((4, 4, 3), 255, np.uint8), np.zeros((4, 4, 3), np.uint8)
    np.testing.assert_array_equal(augment.colour(white, 1.0, 1.0, 1.0), white)
    np.testing.assert_array_equal(augment.colour(black, 1.0, 1.0, 1.0), black)
    checks = np.indices((8, 8)).sum(0) % 2 * np.uint8(255)
    checks = np.repeat(checks[..., None], 3, 2).astype(np.uint8)
    np.testing.assert_array_equal(augment.colour(checks, 0.5, 1.0, 0.5), checks)  # more contrast than there is


def test_what_each_part_of_colour_does():
    pixel = np.array([[[100, 60, 20], [100, 100, 100]]], np.uint8)
    np.testing.assert_array_equal(augment.colour(pixel, 1.0, 0.5, 0.5), [[[125, 75, 25], [125, 125, 125]]])
    np.testing.assert_array_equal(augment.colour(pixel, 0.0, 0.5, 0.5), [[[75, 45, 15], [75, 75, 75]]])
    grey = np.array([[[50, 50, 50], [150, 150, 150]]], np.uint8)  # the mean is 100
    np.testing.assert_array_equal(augment.colour(grey, 0.5, 0.0, 0.5)[0, :, 0], [62, 138])
    np.testing.assert_array_equal(augment.colour(grey, 0.5, 0.5, 0.0), grey)  # greys have no saturation to change
    luma = 0.299 * 100 + 0.587 * 60 + 0.114 * 20
    dull = augment.colour(pixel, 0.5, 0.5, 0.0)[0, 0]
    np.testing.assert_allclose(dull, luma + 0.75 * (np.array([100, 60, 20]) - luma), atol=0.51)
    assert dull.argmax() == 0 and dull.argmin() == 2  # the hue stays


def test_an_unknown_kind():
    with pytest.raises(VlaxError, match=r"stage\.augment: 'rotate' is not one of flip, shift, crop, colour"):
        augment.check(("flip", "rotate"))
