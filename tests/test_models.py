"""The transformers, and parameters as flat dicts."""

import functools
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny import build, config, forward, prompts, weights, with_answers

from vlax.errors import VlaxError
from vlax.models.attention import attend
from vlax.models.projector import Projector, ProjectorConfig, pixel_shuffle
from vlax.models.vision import VisionConfig, VisionTower, patchify
from vlax.models.vlm import VLMConfig, token_losses
from vlax.params import groups

OTHERS = [("scan", "none"), ("unroll", "mlp"), ("scan", True)]
WINDOW = {"layers": 2, "window": 3, "window_layers": (1,)}


@pytest.fixture(scope="module")
def batch():
    return with_answers(prompts(rows=3), np.full((3, 2), 4, np.int32), 2)


@pytest.fixture(scope="module")
def losses(batch):
    """(mode, remat) -> (loss, gradients) of a two-layer decoder whose second layer has a sliding window."""
    _, graphdef, params = build(text_only=True, **WINDOW)

    def run(mode, remat):
        def loss(params):
            logits = groups.rebuild(graphdef, params)(batch, mode=mode, remat=remat)
            return token_losses(logits, batch)[0].sum()

        return jax.jit(jax.value_and_grad(loss))(params)

    return {(mode, remat): run(mode, remat) for mode, remat in [("unroll", False), *OTHERS]}


@pytest.mark.parametrize(("mode", "remat"), OTHERS)
def test_scan_and_remat_change_neither_values_nor_gradients(mode, remat, losses):
    (want, gradients), (loss, got) = losses["unroll", False], losses[mode, remat]
    np.testing.assert_allclose(loss, want, rtol=1e-5)
    for path, value in gradients.items():
        np.testing.assert_allclose(got[path], value, rtol=1e-3, atol=1e-4 * np.abs(value).max(), err_msg=path)


@pytest.mark.parametrize("options", [WINDOW, {"layers": 1, "rope_theta": None, "max_positions": 16}], ids=["window", "learned"])
def test_what_the_last_layer_leaves_out_is_of_no_effect(batch, options):
    """Unrolled, it computes the text alone, the last of one layer too; scanned, image tokens as well, which nobody reads."""
    _, graphdef, params = build(mask="prefix_lm", **options)

    @functools.partial(jax.jit, static_argnums=1)
    def run(params, mode):
        return jax.value_and_grad(lambda p: token_losses(groups.rebuild(graphdef, p)(batch, mode=mode), batch)[0].sum())(params)

    (want, gradients), (loss, got) = run(params, "scan"), run(params, "unroll")
    np.testing.assert_allclose(loss, want, rtol=1e-5)
    for path, value in gradients.items():
        if path.endswith("attention/k/bias"):  # added to all keys, it changes no softmax: its gradient is rounding alone
            assert max(np.abs(value).max(), np.abs(got[path]).max()) < 1e-5
        else:
            np.testing.assert_allclose(got[path], value, rtol=1e-3, atol=1e-4 * np.abs(value).max(), err_msg=path)


@pytest.mark.parametrize("theta", [None, pytest.param(20.0, marks=pytest.mark.slow)])
def test_vision_tower_with_all_options_scans_and_drops_its_extra_tokens(theta):
    made = VisionConfig(
        image_size=8, patch_size=4, width=8, layers=2, heads=2, mlp_dim=8, class_token=True, registers=2, pre_norm=True,
        layer_scale=True, rope_theta=theta,
    )  # fmt: skip
    graphdef, params = jax.jit(lambda: groups.flatten(VisionTower(made, rngs=nnx.Rngs(0))))()
    image = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype(np.uint8)
    run = jax.jit(
        lambda params, mode, remat: groups.rebuild(graphdef, params)(image, mode=mode, remat=remat), static_argnums=(1, 2)
    )
    assert run(params, "unroll", False).shape == (2, 4, 8)
    np.testing.assert_allclose(run(params, "scan", True), run(params, "unroll", False), atol=1e-5)


def test_attention_weights_agree_with_the_mask(batch):
    _, graphdef, params = build(mask="prefix_lm", layers=2)

    def look(params):
        model = groups.rebuild(graphdef, params)
        return model.attention_weights(batch), model.sequence(batch)[2]

    layers, mask = jax.jit(look)(params)
    assert len(layers) == 2 and layers[0].shape == (3, 4, 11, 11) and layers[0].dtype == jnp.float32
    for layer in layers:
        np.testing.assert_allclose(layer.sum(-1), 1.0, atol=1e-5)
        np.testing.assert_array_equal(np.asarray(layer > 0), np.broadcast_to(np.asarray(mask)[:, None], layer.shape))


def test_logits_are_those_of_text_positions_and_follow_the_image(batch):
    logits = forward()(batch)
    assert logits.shape == (3, 7, 11) and logits.dtype == jnp.float32
    other = forward()({**batch, "image": 255 - batch["image"]})
    assert (logits[0] != other[0]).any() and (logits[1] == other[1]).all()  # row 1 hides its image


def test_text_only_model(batch):
    made, _, params = build(mask="causal", text_only=True)
    assert made.tokens_per_image == 0 and not [path for path in params if not path.startswith("decoder/")]
    words = {name: value for name, value in batch.items() if name != "image"}
    logits = forward(mask="causal", text_only=True)(words)
    assert logits.shape == (3, 7, 11)
    # With I = 0 a row that claims an image must not have its positions shifted by one.
    claims = forward(mask="causal", text_only=True)({**words, "has_image": ~words["has_image"]})
    np.testing.assert_array_equal(logits, claims)


def test_pixel_shuffle_literal():
    grid = jnp.arange(16.0).reshape(1, 16, 1)
    assert pixel_shuffle(grid, 2)[0].tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    assert ProjectorConfig("mlp", 8, 16, pixel_shuffle=2).tokens(16) == 4
    for tokens in (6, 9):
        with pytest.raises(ValueError, match=f"pixel_shuffle=2 needs a square grid .* there are {tokens} image features"):
            pixel_shuffle(jnp.zeros((1, tokens, 1)), 2)
    with pytest.raises(ValueError, match="projector kind 'conv' is not one of linear, mlp"):
        Projector(ProjectorConfig("conv", 8, 16), rngs=nnx.Rngs(0))


def test_patchify_literal():
    row, column, channel = np.meshgrid(range(2), range(4), range(3), indexing="ij")
    image = jnp.asarray(100 * row + 10 * column + channel)[None]  # 2 x 4 pixels: two patches side by side
    left = [0, 1, 2, 10, 11, 12, 100, 101, 102, 110, 111, 112]
    assert patchify(image, 2)[0].tolist() == [left, [value + 20 for value in left]]


@pytest.mark.parametrize("softcap", (None, 2.0))
def test_grouped_queries_equal_repeated_keys(softcap):
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=shape).astype(np.float32) for shape in ((2, 6, 3, 4), (2, 2, 5, 4), (2, 2, 5, 4)))
    mask = rng.random((2, 3, 5)) < 0.6
    mask[:, :, 0] = True
    out, weights = attend(q, k, v, mask, scale=0.5, softcap=softcap)
    k, v = (np.repeat(x, 3, axis=1) for x in (k, v))  # heads 0..2 share group 0, heads 3..5 group 1
    logits = 0.5 * np.einsum("bhqk,bhsk->bhqs", q, k)
    logits = logits if softcap is None else softcap * np.tanh(logits / softcap)
    powers = np.exp(logits) * mask[:, None]
    expected = powers / powers.sum(-1, keepdims=True)
    np.testing.assert_allclose(weights, expected, atol=1e-5)
    np.testing.assert_allclose(out, np.einsum("bhqs,bhsk->bhqk", expected, v), atol=1e-5)


def test_config_goes_through_json():
    made = config(mask="prefix_lm", rope_scaling={"rope_type": "linear", "factor": 2.0}, **WINDOW)
    for one in (made, config(text_only=True)):
        back = VLMConfig.from_dict(json.loads(json.dumps(one.to_dict())))
        assert back == one and hash(back) == hash(one)
    assert made.tokens_per_image == 4
    with pytest.raises(VlaxError, match="unknown mask kind 'none'"):
        config(mask="none")


def test_token_losses_by_hand():
    """Tokens 3 2 1 0 (prompt, prompt, answer, answer): loss falls at 1 (predicting 1) and 2 (predicting 0)."""
    probabilities = np.array([[[0.25] * 4, [0.1, 0.5, 0.2, 0.2], [0.2, 0.4, 0.3, 0.1], [0.7, 0.1, 0.1, 0.1]]])
    rows = {"tokens": [[3, 2, 1, 0]], "segment": [[1, 1, 2, 2]], "example": [[1, 1, 1, 1]]}
    got = token_losses(jnp.log(probabilities) + 3.0, {name: jnp.asarray(value) for name, value in rows.items()})
    np.testing.assert_allclose(got[0], [[0, -np.log(0.5), -np.log(0.2), 0]], atol=1e-5)
    assert got[1].tolist() == [[False, True, True, False]]
    assert got[2].tolist() == [[False, True, False, False]]


def test_twelve_layers_keep_their_order():
    graphdef, params = weights(config(text_only=True, layers=12))
    for i in range(12):
        path = f"decoder/layers/{i}/norm1/scale"
        params[path] = np.full_like(params[path], i)
    module = groups.rebuild(graphdef, {path: params[path] for path in sorted(params)})  # '10' and '11' before '2'
    assert [int(layer.norm1.scale[...][0]) for layer in module.decoder.layers] == list(range(12))
    again, flat = groups.flatten(module)
    assert again == graphdef and flat.keys() == params.keys()
    assert groups.checksum(flat) == groups.checksum(params)


PATHS = ["vision/patch/kernel", "projector/fc1/kernel", "projector/fc1/bias", "decoder/norm/scale"]


def test_assign_takes_the_first_group_that_matches():
    found = groups.assign(PATHS, {"bias": r"bias$", "projector": r"^projector/"})
    assert found == {"projector/fc1/bias": "bias", "projector/fc1/kernel": "projector"}
    params = {path: np.zeros((2, 3), np.float32) for path in PATHS}
    trainable, frozen = groups.split(params, found)
    assert sorted(frozen) == ["decoder/norm/scale", "vision/patch/kernel"]
    assert groups.join(trainable, frozen).keys() == params.keys()
    assert groups.count(trainable) == 12 and groups.size_bytes(trainable) == 48


@pytest.mark.parametrize(
    ("patterns", "text"),
    [
        ({"lora": "lora"}, "pattern lora='lora' matches no parameter. Parameters start with: decoder/norm, projector/fc1"),
        ({"all": "("}, "trainable pattern all='(' is not a regular expression"),
        ({"all": ".", "bias": "bias"}, "trainable pattern 'bias' only matches parameters that an earlier pattern took already"),
    ],
)  # fmt: skip
def test_assign_errors(patterns, text):
    with pytest.raises(VlaxError, match=re.escape(text)):
        groups.assign(PATHS, patterns)


def test_another_structure_is_refused():
    want = {"a": np.zeros(3), "b": np.zeros((2, 2)), "c": np.zeros(1)}
    groups.check_same_structure(dict(want), want, "the export")
    have = {"a": np.zeros(3), "b": np.zeros((2, 3)), "d": np.zeros(1)}
    text = "the export does not fit this model: 1 missing (c), 1 unexpected (d), 1 of another shape (b (2, 3) for (2, 2))"
    with pytest.raises(VlaxError, match=re.escape(text)):
        groups.check_same_structure(have, want, "the export")


def test_checksum_changes_with_any_bit():
    params = {
        "a": jnp.arange(4, dtype=jnp.bfloat16),
        "b": np.zeros((2, 3), np.float32),
        "c": np.float32(1),
        "d": np.zeros((0, 2)),
    }
    known = groups.checksum(params)
    assert groups.checksum(dict(reversed(params.items()))) == known
    negative = params["b"].copy()
    negative[1, 2] = -0.0  # one bit, and equal as a number
    bits = np.asarray(params["a"]).view(np.uint16) ^ np.array([0, 0, 1, 0], np.uint16)
    changes = [("b", negative), ("b", params["b"].reshape(3, 2)), ("b", params["b"].astype(np.int32)), ("d", np.zeros((2, 0)))]
    changes += [("a", bits.view(jnp.bfloat16)), ("c", np.nextafter(np.float32(1), np.float32(2)))]
    sums = {groups.checksum({**params, name: value}) for name, value in changes}
    sums.add(groups.checksum({("e" if name == "a" else name): value for name, value in params.items()}))
    assert len(sums | {known}) == len(changes) + 2
