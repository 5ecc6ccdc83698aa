"""Augmentation: what it does to pixels, where it must not flip, and that it follows the position, not the batch."""

import numpy as np
import pytest

from vlax.data import augment
from vlax.data.rows import Row, Turn
from vlax.errors import VlaxError

IMAGE = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)


def row(question, answer="yes"):
    return Row("r", "i", "question", (Turn(question, answer),), None)


@pytest.mark.parametrize(("draw", "flipped"), ((0.4, True), (0.6, False)))
def test_flip(draw, flipped):
    out = augment.apply(IMAGE, row("is it red?"), ("flip",), np.array([draw, 0, 0]))
    np.testing.assert_array_equal(out, IMAGE[:, ::-1] if flipped else IMAGE)


@pytest.mark.parametrize("asked", ("is it left of the box?", "what is on the RIGHT?", "where is it, left?"))
def test_never_flipped_where_the_text_names_a_side(asked):
    np.testing.assert_array_equal(augment.apply(IMAGE, row(asked), ("flip",), np.zeros(3)), IMAGE)
    assert not augment.speaks_of_sides(row("is it bright?"))
    assert augment.speaks_of_sides(row("where is it?", "top left."))


def test_shift_repeats_the_border():
    down_right = augment.apply(IMAGE, row("?"), ("shift",), np.array([0.9, 0.0, 0.0]))  # reach 1: from the far corner
    np.testing.assert_array_equal(down_right[1:, 1:], IMAGE[:-1, :-1])
    np.testing.assert_array_equal(down_right[0, 1:], IMAGE[0, :-1])
    still = augment.apply(IMAGE, row("?"), ("shift",), np.array([0.9, 0.5, 0.5]))
    np.testing.assert_array_equal(still, IMAGE)


def test_an_unknown_kind():
    with pytest.raises(VlaxError, match=r"stage\.augment: 'rotate' is not one of flip, shift"):
        augment.check(("flip", "rotate"))
