"""Attention's own backward pass, masks in two parts, and what a layer keeps: equal to the plain formula and the reference."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import build, prompts, with_answers

from vlax import masks
from vlax.errors import VlaxError
from vlax.models import cores, remat
from vlax.models.build import abstract_model
from vlax.models.cores import SplitMask
from vlax.params import groups
from vlax.training import steps

REFERENCE = jax.jit(masks.attention_mask, static_argnums=(3, 4))


@pytest.fixture(scope="module")
def batch():
    return with_answers(prompts(rows=4), np.full((4, 2), 4, np.int32), 2)


def test_attentions_own_backward_pass_is_autodiffs():
    """In float32, where both are exact; with one mask for all queries, and with none."""
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=shape).astype(np.float32) for shape in ((2, 6, 3, 4), (2, 2, 5, 4), (2, 2, 5, 4)))
    mask, out = rng.random((2, 3, 5)) < 0.6, rng.normal(size=(2, 6, 3, 4)).astype(np.float32)
    mask[:, :, 0] = True
    for seen in (mask[:, :1], None):
        reference = jax.grad(lambda *x, m=seen: (cores.attend(*x, m, scale=0.5)[0] * out).sum(), (0, 1, 2))(q, k, v)
        own = jax.grad(lambda *x, m=seen: (cores.mix(*x, m, 0.5) * out).sum(), (0, 1, 2))(q, k, v)
        for got, want in zip(own, reference, strict=True):
            np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize("kind", [*masks.KINDS[:3], pytest.param(masks.KINDS[3], marks=pytest.mark.slow)])
def test_masks_in_two_parts_are_the_reference_mask(kind, batch):
    """Where somebody looks at the result: the rows of a hidden image may say what they like."""
    _, graphdef, params = build(mask=kind)
    model = groups.rebuild(graphdef, params)
    whole = REFERENCE(*(batch[name] for name in ("segment", "example", "has_image")), 4, kind)
    split = model.parts(batch, whole)
    assert isinstance(split, SplitMask) and split.prefix == 4 and split.rows.shape == (4, 7, 11)
    keys = 4 if split.front is None else split.front.shape[-1]
    front = np.ones((4, 4, 4), bool) if split.front is None else np.broadcast_to(split.front, (4, 4, keys))
    shown = batch["has_image"][:, 0]
    made = np.concatenate([np.pad(front, ((0, 0), (0, 0), (0, 11 - keys))), split.rows], axis=1)
    np.testing.assert_array_equal(made[shown], np.asarray(whole)[shown])
    np.testing.assert_array_equal(made[:, 4:], np.asarray(whole)[:, 4:])
    assert keys == {"causal": 4, "image_bidirectional": 4}.get(kind, 11)

    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(4, heads, 11, 4)).astype(np.float32) for heads in (4, 2, 2))
    got, want = jax.jit(lambda *x: (cores.core(*x, split, scale=0.5), cores.core(*x, whole, scale=0.5)))(q, k, v)
    np.testing.assert_allclose(got[shown], want[shown], atol=1e-5)
    np.testing.assert_allclose(got[:, :, 4:], want[:, :, 4:], atol=1e-5)


def test_several_pictures_and_pictures_within_the_text_keep_the_reference_mask(batch):
    _, graphdef, params = build()
    model, mask = groups.rebuild(graphdef, params), np.ones((4, 11, 11), bool)
    more = {**batch, "owner": np.ones((4, 1), np.int32), "before": np.ones((4, 1), np.int32)}
    assert model.parts(more, mask) is mask
    assert model.parts({**batch, "has_image": np.ones((4, 2), bool)}, mask) is mask
    _, windowed, params = build(window=3, window_layers=(0,))
    assert groups.rebuild(windowed, params).parts(batch, mask) is mask


@pytest.mark.slow
def test_what_a_layer_keeps_changes_neither_loss_nor_gradients(batch):
    """Each policy, and attention's own backward pass, in bfloat16: within its rounding of float32's autodiff. A key's bias has
    no gradient but rounding: softmax takes no notice of it."""
    made, exact, params = build(layers=1)
    low, _ = abstract_model(made, jnp.bfloat16)

    def run(params, graphdef, kind):
        return jax.value_and_grad(lambda p: steps.loss_sum(p, {}, batch, graphdef, steps.StepConfig("unroll", kind))[0])(params)

    both = jax.jit(lambda params: (run(params, exact, "none"), [run(params, low, kind) for kind in remat.KINDS]))
    (want, gradients), found = both(params)
    assert len(found) == 5
    for got, grads in found:
        np.testing.assert_allclose(got, want, rtol=0.02)
        for path, value in gradients.items():
            apart = np.linalg.norm(np.asarray(grads[path], np.float32) - value)
            assert apart < 0.25 * np.linalg.norm(value) + 0.05, path


def test_policies_by_name_and_by_what_they_were_called():
    assert [remat.named(word) for word in ("", False, True, "False", "True", "mlp")] == [
        "none",
        "none",
        "full",
        "none",
        "full",
        "mlp",
    ]
    with pytest.raises(VlaxError, match=r"run.remat='some' is not one of none, dots, attention, mlp, full \(True is full"):
        remat.named("some")


@pytest.mark.parametrize("softcap", (None, 2.0))
def test_keys_that_are_there_once_give_what_copies_of_them_give(softcap):
    """Two rows of three neighbours each, four query heads on two of keys; five keys in common, three of one's own."""
    rng = np.random.default_rng(0)
    q, front, own = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((6, 4, 1, 4), (2, 2, 2, 5, 4), (2, 6, 2, 3, 4)))
    mask = jnp.asarray(rng.random((6, 1, 8)) < 0.6).at[:, :, 6].set(True)
    k, v = (jnp.concatenate([jnp.repeat(front[i], 3, axis=0), own[i]], axis=2) for i in range(2))
    want = cores.attend(q, k, v, mask, scale=0.5, softcap=softcap)
    got = cores.attend_shared(q, (front[0], front[1]), (own[0], own[1]), mask, scale=0.5, softcap=softcap)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
