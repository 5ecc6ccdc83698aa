"""The product of a Linear layer: its gradients are jax's own, and what is frozen costs nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vlax.models import products


@pytest.mark.parametrize("outputs", [8, 64])  # a gradient that is high, [24,8], and one that is wide, [24,64]
def test_gradients_are_those_of_a_plain_product(outputs):
    draw = np.random.default_rng(0)
    x, w, g = (jnp.asarray(draw.normal(size=shape), jnp.float32) for shape in ((96, 24), (24, outputs), (96, outputs)))
    out, back = jax.vjp(lambda x, w: products.dot_general(x, w, products.PLAIN), x, w)
    plain, plain_back = jax.vjp(jnp.matmul, x, w)
    np.testing.assert_array_equal(out, plain)
    for ours, theirs in zip(back(g), plain_back(g), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def products_of(x, w, argument):
    """Shapes of the products of the compiled gradient with respect to one argument."""

    def loss(x, w):
        return products.dot_general(x, w, products.PLAIN).sum() ** 2

    text = jax.jit(jax.grad(loss, argument)).lower(x, w).compile().as_text()
    return sorted(line.split("= ")[1].split("{")[0] for line in text.splitlines() if " dot(" in line)


def test_a_high_gradient_is_made_as_a_wide_one_and_a_frozen_operand_has_none():
    x, w = jnp.ones((512, 256)), jnp.ones((256, 64))
    assert products_of(x, w, 1) == ["f32[512,64]", "f32[64,256]"]
    assert products_of(x, w, 0) == ["f32[512,256]", "f32[512,64]"]
    assert products_of(jnp.ones((512, 64)), jnp.ones((64, 256)), 1) == ["f32[512,256]", "f32[64,256]"]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_each_operand_is_kept_for_the_gradient_of_the_other_alone(dtype):
    x, w = jnp.ones((6, 3), dtype), jnp.ones((3, 2), dtype)

    def kept(function, *learning):
        return [value.shape for value in jax.tree.leaves(jax.vjp(function, *learning)[1])]

    assert kept(lambda x: products.f32_matmul(x, w), x) == [w.shape]
    assert kept(lambda w: products.f32_matmul(x, w), w) == [x.shape]
    assert sorted(kept(products.f32_matmul, x, w)) == sorted([x.shape, w.shape])


def test_other_dtypes_and_shapes_are_left_to_jax():
    def primitives(x, w, dimensions):
        jaxpr = jax.make_jaxpr(lambda x, w: products.dot_general(x, w, dimensions, preferred_element_type=None))(x, w)
        return {eqn.primitive.name for eqn in jaxpr.eqns}

    low, three = jnp.bfloat16, (((2,), (0,)), ((), ()))
    assert primitives(jnp.ones((4, 3)), jnp.ones((3, 2)), products.PLAIN) != {"dot_general"}
    assert primitives(jnp.ones((4, 3), low), jnp.ones((3, 2), low), products.PLAIN) == {"dot_general"}
    assert primitives(jnp.ones((2, 4, 3)), jnp.ones((3, 2)), three) == {"dot_general"}
    with jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((2,), ("data",))):
        assert primitives(jnp.ones((4, 3)), jnp.ones((3, 2)), products.PLAIN) == {"dot_general"}
