"""Low-rank adapters: nothing at first, merged equals adapted, frozen weights stay, PEFT's names."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file
from tiny import config as tiny_config
from tiny import prompts, weights

from vlax.errors import VlaxError
from vlax.models.build import abstract_model
from vlax.models.lora import LoRAConfig, merge
from vlax.params import groups, sharding
from vlax.pretrained.writing import adapter

LORA = LoRAConfig(rank=2, alpha=8.0, targets=("q", "v", "down"))


@pytest.fixture(scope="module")
def models():
    """((graphdef, params) plain, (graphdef, params) adapted) with the same base values."""
    plain_config = tiny_config()
    adapted_config = dataclasses.replace(plain_config, decoder=dataclasses.replace(plain_config.decoder, lora=LORA))
    plain, base = weights(plain_config)
    adapted, abstract = abstract_model(adapted_config, jnp.float32)
    rng = np.random.default_rng(0)
    params = {
        p: base[p] if p in base else jnp.asarray(rng.normal(size=v.shape) * 0.3, jnp.float32) for p, v in abstract.items()
    }
    return (plain, base), (adapted, params)


def logits(graphdef, params):
    return groups.rebuild(graphdef, params)(prompts())


def test_zero_b_changes_nothing_and_a_merge_changes_no_output(models):
    (plain, base), (adapted, params) = models
    silent = {p: jnp.zeros_like(v) if p.endswith("lora_b") else v for p, v in params.items()}
    np.testing.assert_array_equal(logits(adapted, silent), logits(plain, base))
    moved = logits(adapted, params)
    assert jnp.abs(moved - logits(plain, base)).max() > 1e-2
    merged = merge(params, LORA)
    assert merged.keys() == base.keys()
    np.testing.assert_allclose(logits(plain, merged), moved, atol=2e-5)


def test_only_adapters_learn_and_every_one_has_a_sharding(models):
    (_, base), (_, params) = models
    assigned = groups.assign(params, {"lora": "/lora_[ab]$"})
    assert assigned.keys() == params.keys() - base.keys()
    layers = sum(path.endswith("attention/q/lora_a") for path in params)
    assert len(assigned) == 2 * len(LORA.targets) * layers
    assert all(sharding.spec(path) == jax.sharding.PartitionSpec() for path in assigned)


def test_peft_layout(models, tmp_path):
    _, (_, params) = models
    adapters = {p: np.asarray(v) for p, v in params.items() if "/lora_" in p}
    decoder = dataclasses.replace(tiny_config().decoder, lora=LORA)
    assert adapter.write(tmp_path, decoder, adapters)
    stored = load_file(tmp_path / "adapter_model.safetensors")
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    np.testing.assert_array_equal(stored[name], np.asarray(params["decoder/layers/0/attention/q/lora_a"]).T)
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (settings["r"], settings["lora_alpha"], settings["target_modules"]) == (2, 8.0, ["q_proj", "v_proj", "down_proj"])


@pytest.mark.parametrize(("rank", "targets"), ((0, ("q",)), (4, ("query",)), (4, ())))
def test_mistakes(rank, targets):
    with pytest.raises(VlaxError, match="the rank is at least 1, targets are of q, k, v, o, up, gate, down"):
        LoRAConfig(rank=rank, targets=targets)
