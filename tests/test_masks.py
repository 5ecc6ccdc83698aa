"""The masking library against its own docstrings, and through a tiny model: who depends on whom."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import build

from vlax import masks
from vlax.errors import VlaxError
from vlax.params import groups


def documented_tables() -> dict[str, list[str]]:
    """{kind: its rows of the module docstring, as strings of 0 and 1}"""
    found = re.findall(r"^ +[ipa-] +((?:[01]{7} *){4})$", masks.__doc__, flags=re.MULTILINE)
    return dict(zip(masks.KINDS, zip(*(row.split() for row in found), strict=True), strict=True))


def drawn(mask) -> list[str]:
    return ["".join("1" if sees else "0" for sees in row) for row in np.asarray(mask)]


def documented_example(function):
    """(arguments, result) of the literal row of a docstring: `name value, name value  ->  result`."""
    given, result = re.search(r"^ *(\S.*)  ->  (.*)$", function.__doc__, flags=re.MULTILINE).groups()
    values = {name: eval(text) for name, text in re.findall(r"(\w+) (\[\[.*?\]\]|\d+)", given)}
    if "one example" in given:
        values["example"] = np.ones_like(values["segment"]).tolist()
    return {k: v if isinstance(v, int) else jnp.asarray(v) for k, v in values.items()}, eval(result)


@pytest.mark.parametrize(
    "function", (masks.sequence_examples, masks.prefix, masks.positions, masks.loss_mask), ids=lambda f: f.__name__
)
def test_documented_rows(function):
    given, result = documented_example(function)
    assert function(**given).tolist() == result


def row_mask(segment, example, kind, has_image=((True,),), per_image=2):
    return masks.attention_mask(jnp.asarray([segment]), jnp.asarray([example]), jnp.asarray(has_image), per_image, kind)[0]


@pytest.mark.parametrize("kind", masks.KINDS)
def test_documented_tables(kind):
    assert drawn(row_mask([1, 1, 2, 2, 0], [1, 1, 1, 1, 0], kind)) == list(documented_tables()[kind])


@pytest.mark.parametrize("kind", masks.KINDS)
def test_without_an_image_its_columns_are_pads(kind):
    hidden = ["1000000", "0100000", "0010000", "0011000", "0011100", "0011110", "0000001"]
    if kind == "prefix_lm":
        hidden[2] = "0011000"
    assert drawn(row_mask([1, 1, 2, 2, 0], [1, 1, 1, 1, 0], kind, ((False,),))) == hidden
    text_only = row_mask([1, 1, 2, 2, 0], [1, 1, 1, 1, 0], kind, ((False,),), per_image=0)
    assert drawn(text_only) == [row[2:] for row in hidden[2:]]


@pytest.mark.parametrize("kind", masks.KINDS)
def test_packed_examples_do_not_see_each_other(kind):
    """Two examples in one row are two rows: image slot 0 and text 1, image slot 1 and text 2."""
    packed = np.asarray(row_mask([1, 2, 1, 1, 2, 0], [1, 1, 2, 2, 2, 0], kind, ((True, True),)))
    for own, segment in (([0, 1, 4, 5], [1, 2]), ([2, 3, 6, 7, 8], [1, 1, 2])):
        alone = row_mask(segment, [1] * len(segment), kind)
        assert drawn(packed[np.ix_(own, own)]) == drawn(alone)
        others = np.setdiff1d(np.arange(10), own)
        assert not packed[np.ix_(own, others)].any() and not packed[np.ix_(others, own)].any()
    assert drawn(packed[9:]) == ["0000000001"]


def test_packed_positions_and_loss_restart_by_example():
    example = jnp.asarray([[1, 1, 2, 2, 2, 0]])
    positions = masks.positions(example, jnp.asarray([[True, True]]), 2)
    assert positions.tolist() == [[0, 1, 0, 1, 2, 3, 2, 3, 4, 0]]
    # Position 1 is followed by an answer token of another example: no loss there.
    assert masks.loss_mask(jnp.asarray([[1, 1, 2, 2, 2, 0]]), example).tolist() == [[False, False, True, True, False, False]]


def test_the_prefix_of_a_dialogue_ends_at_its_first_answer():
    segment, example = [1, 2, 1, 2, 1, 1, 2], [1, 1, 1, 1, 2, 2, 2]
    prefix = masks.prefix(jnp.asarray([segment]), jnp.asarray([example]))[0]
    assert prefix.tolist() == [True, False, False, False, True, True, False]
    # The second question (text 2) is seen by no image token and is causal itself, under every kind.
    for kind in masks.KINDS:
        mask = np.asarray(row_mask([1, 2, 1, 2], [1] * 4, kind))
        assert not mask[:2, 3:].any() and drawn(mask)[3:] == ["111100", "111110", "111111"]


def test_loss_of_a_dialogue_falls_on_its_answers_only():
    assert masks.loss_mask(jnp.asarray([[1, 2, 1, 2]]), jnp.ones((1, 4), int)).tolist() == [[True, False, True, False]]
    assert masks.targets(jnp.asarray([[5, 6, 7]])).tolist() == [[6, 7, 0]]


def test_unknown_kind():
    text = "unknown mask kind 'full'; the kinds are causal, image_bidirectional, prefix_lm, image_sees_prompt"
    with pytest.raises(VlaxError, match=re.escape(text)):
        masks.check_kind("full")
    with pytest.raises(VlaxError, match="unknown mask kind"):
        row_mask([1], [1], "full")


# Two rows, S = 4 image + 6 text: one with an image and a pad, one without an image and without a pad.
SEGMENT = np.array([[1, 1, 2, 2, 2, 0], [1, 1, 1, 1, 2, 2]], np.int32)
EXAMPLE = np.minimum(SEGMENT, 1)
HAS_IMAGE = np.array([[True], [False]])


def leak_batch():
    rng = np.random.default_rng(0)
    tokens = rng.integers(2, 11, SEGMENT.shape).astype(np.int32)
    image = rng.integers(0, 256, (2, 1, 8, 8, 3)).astype(np.uint8)
    return {"image": image, "has_image": HAS_IMAGE, "tokens": tokens, "segment": SEGMENT, "example": EXAMPLE}


@pytest.fixture(scope="module")
def dependence():
    """kind -> (bool[2,S,S]: logits [position] of a two-layer VLM have a gradient in embedding [position]; its mask)."""

    @jax.jit
    def gradients(params, embeddings, positions, mask):
        decoder = groups.rebuild(graphdef, params).decoder
        logits, vjp = jax.vjp(lambda x: decoder.logits(decoder(x, positions, mask)), embeddings)
        weights = jnp.asarray(np.random.default_rng(1).normal(size=logits.shape[-1]), jnp.float32)
        size = logits.shape[1]
        one_hot = jnp.eye(size)[:, None, :, None] * jnp.broadcast_to(weights, (size, *logits.shape))
        return (jnp.abs(jax.vmap(lambda g: vjp(g)[0])(one_hot)).max(-1) > 0).transpose(1, 0, 2)

    _, graphdef, params = build(layers=2)
    batch = leak_batch()
    embeddings, positions, _ = jax.jit(lambda p: groups.rebuild(graphdef, p).sequence(batch))(params)

    def of(kind):
        _, own, _ = build(layers=2, mask=kind)  # the mask as the model of that kind makes it
        mask = jax.jit(lambda p: groups.rebuild(own, p).sequence(batch)[2])(params)
        return np.asarray(gradients(params, embeddings, positions, mask)), np.asarray(mask)

    return of


@pytest.mark.parametrize("kind", masks.KINDS)
def test_gradients_reach_what_the_mask_says_and_nothing_else(kind, dependence):
    depends, mask = dependence(kind)
    np.testing.assert_array_equal(mask, masks.attention_mask(SEGMENT, EXAMPLE, HAS_IMAGE, 4, kind))
    twice = (mask.astype(int) @ mask.astype(int)) > 0  # two layers: whom those that I see, see
    np.testing.assert_array_equal(depends, twice)
    segment = np.concatenate([np.zeros((2, 4), int), SEGMENT], axis=1)
    real = np.asarray(masks.sequence_examples(EXAMPLE, HAS_IMAGE, 4)) > 0
    for row in range(2):
        answers, pads = np.flatnonzero(segment[row] == masks.ANSWER), ~real[row]
        for answer in answers:  # no position at all, image and prompt included, sees a later answer token
            assert not depends[row, :answer, answer].any() and depends[row, answer, : answer + 1][real[row, : answer + 1]].all()
        assert not depends[row][np.ix_(real[row], pads)].any()
    seen_by_image = {
        "causal": "1000000000 1100000000 1110000000 1111000000",
        "image_bidirectional": " ".join(["1111000000"] * 4),
        "prefix_lm": " ".join(["1111110000"] * 4),
        "image_sees_prompt": " ".join(["1111110000"] * 4),
    }
    assert drawn(depends[0, :4]) == seen_by_image[kind].split()


def drawn_tables(size: int) -> list[tuple[str, list[str]]]:
    """(kind, its rows) of the docstring's tables of so many positions."""
    found = re.findall(rf"^ +[a-z] +((?:[01]{{{size}}} *){{4}})$", masks.__doc__, flags=re.MULTILINE)
    return list(zip(masks.KINDS, map(list, zip(*(row.split() for row in found), strict=True)), strict=True))


@pytest.mark.parametrize(("segment", "before"), (([1, 2, 1, 2], [0, 0]), ([1, 2, 1, 1, 2], [1, 3])))
def test_documented_tables_of_two_pictures(segment, before):
    """Drawn in the order of positions, wherever the slots lie."""
    given = [jnp.asarray([values], jnp.int32) for values in (segment, np.minimum(segment, 1), [1, 1], before)]
    segment, example, owner, before = given
    shown = jnp.asarray([[True, True]])
    at = np.asarray(masks.positions(example, shown, 2, owner, before))[0]
    assert sorted(at) == list(range(at.size))
    order = np.argsort(at)
    tables = drawn_tables(at.size)
    assert len(tables) == 4 and all(len(rows) == at.size for _, rows in tables)
    for kind, rows in tables:
        mask = np.asarray(masks.attention_mask(segment, example, shown, 2, kind, owner, before))[0]
        assert drawn(mask[np.ix_(order, order)]) == rows, kind
