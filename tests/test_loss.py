"""The head and its cross-entropy in one: a slice at a time, and equal to the plain formula."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vlax.models import loss
from vlax.models.loss import Head, cross_entropy, likeliest

B, T, D, V = 4, 6, 8, 13
HEADS = [Head(True, jnp.float32), Head(False, jnp.float32, divisor=2.0, softcap=3.0)]


@pytest.fixture
def slices_of_four(monkeypatch):
    monkeypatch.setattr(loss, "LOGIT_BYTES", 4 * V * 4)


def case(tied: bool, share: float):
    rng = np.random.default_rng(0)
    table = rng.normal(size=(V, D) if tied else (D, V)).astype(np.float32)
    hidden, target = rng.normal(size=(B, T, D)).astype(np.float32), rng.integers(0, V, (B, T)).astype(np.int32)
    return hidden, table, target, rng.random((B, T)) < share


def plain(hidden, table, target, supervised, head):
    logits = hidden @ (table.T if head.tied else table) / head.divisor
    logits = logits if head.softcap is None else head.softcap * jnp.tanh(logits / head.softcap)
    losses = -jnp.take_along_axis(jax.nn.log_softmax(logits), target[..., None], -1)[..., 0]
    return jnp.where(supervised, losses, 0.0).sum(), (supervised & (logits.argmax(-1) == target)).sum()


@pytest.mark.parametrize("head", HEADS, ids=("tied", "untied, divided and capped"))
def test_slices_add_up_to_the_plain_loss_and_its_gradients(head, slices_of_four):
    """24 positions in six slices, of which those of the supervised positions are worked on."""

    def both(function):
        graded = jax.value_and_grad(lambda h, t, *rest: function(h, t, *rest, head)[0], argnums=(0, 1))
        return lambda *args: (graded(*args), function(*args, head)[1])

    here, there = jax.jit(both(cross_entropy)), jax.jit(both(plain))
    for share in (0.4, 1.0, 0.0):  # in the last one nothing is supervised
        args = case(head.tied, share)
        ((want, grads), right), ((got, found), correct) = there(*args), here(*args)
        np.testing.assert_allclose(got, want, rtol=1e-5)
        assert correct == right
        for value, expected in zip(found, grads, strict=True):
            np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5)


def products(function, *args) -> int:
    return str(jax.make_jaxpr(function)(*args)).count("dot_general")


def test_a_product_for_each_gradient_that_is_asked_for(slices_of_four):
    """Logits alone; with the gradient of the hidden states; with the table's too: no product runs twice."""
    args, run = case(True, 0.5), functools.partial(cross_entropy, head=HEADS[0])
    total = lambda *args: run(*args)[0]  # noqa: E731
    assert [products(f, *args) for f in (total, jax.grad(total), jax.grad(total, (0, 1)))] == [1, 2, 3]


def test_the_positions_of_a_slice_are_a_power_of_two_unless_all_fit(monkeypatch):
    assert loss.slice_length(1_000, 32_000) == 1_000  # 0.1 GB
    assert loss.slice_length(4_096, 151_936) == 1_024  # 1,766 would fit
    monkeypatch.setattr(loss, "LOGIT_BYTES", 8)
    assert loss.slice_length(16, 151_936) == 1


def test_rows_of_a_mesh_are_sliced_by_device(slices_of_four, monkeypatch):
    """Each of two devices has its own supervised positions in front, one of them none; what comes out is the same."""
    graded = lambda *args: jax.jit(jax.value_and_grad(lambda *x: cross_entropy(*x, HEADS[0])[0], (0, 1)))(*args)  # noqa: E731
    args = case(True, 0.5)
    args[3][:2] = False
    want, gradients = graded(*args)
    monkeypatch.setattr(loss, "shards", lambda rows: 2)
    got, found = graded(*args)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    for value, expected in zip(found, gradients, strict=True):
        np.testing.assert_allclose(value, expected, atol=1e-5)


def test_the_likeliest_is_what_argmax_finds_the_first_of_equals():
    logits = jnp.asarray([[1.0, 3.0, 3.0, 2.0], [0.0, 0.0, 0.0, 0.0], [-5.0, -jnp.inf, -4.0, -jnp.inf]])
    for target in range(4):
        found = likeliest(logits, jnp.full((3,), target, jnp.int32))
        np.testing.assert_array_equal(found, logits.argmax(-1) == target)
    np.testing.assert_array_equal(likeliest(logits, jnp.asarray([1, 0, 2])), [True, True, True])
