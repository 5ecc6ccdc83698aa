"""What is traced and compiled once in a process, and what must not be taken for the same."""

import dataclasses
import types

import jax
import numpy as np
import pytest
from conftest import tiny

from vlax.errors import VlaxError
from vlax.models.build import abstract_model, abstract_part
from vlax.models.decoder import Decoder, DecoderConfig
from vlax.models.vlm import VLMConfig
from vlax.training import backward, programs, session, stages
from vlax.training.planning import Cost, Counter
from vlax.training.topologies import GIB

CONFIG = VLMConfig(DecoderConfig(vocab_size=32, width=16, layers=1, heads=2, kv_heads=1, head_dim=8, mlp_dim=16))


def built(tmp_path, **fields):
    return session.build(stages.chain(tiny("stage0", **fields), tmp_path)[-1])


def test_the_same_stage_anew_has_the_programs_of_the_first(tmp_path):
    """Whatever seed and rows: neither is in a program."""
    first, again = built(tmp_path), built(tmp_path, run__seed=7)
    assert again.train_step is first.train_step and again.eval_step is first.eval_step and again.tx is first.tx


@pytest.mark.parametrize(
    "fields",
    [{"stage__learning_rate": {"all": 1e-3}}, {"stage__steps": 6}, {"stage__accumulate": 2},
     {"stage__clip": 0.5}, {"stage__trainable": {"all": "^vision/"}},
     {"run__remat": "full"}, {"run__mask": "causal"}, {"run__dtype": "bfloat16"}],
    ids=lambda fields: next(iter(fields)),
)  # fmt: skip
def test_another_stage_has_programs_of_its_own(tmp_path, fields):
    first, other = built(tmp_path), built(tmp_path, **fields)
    assert other.train_step is not first.train_step


def test_structures_are_told_apart_by_all_that_a_config_says():
    """1 and 1.0 are one key to a dict, and a dict is none."""
    whole = dataclasses.replace(
        CONFIG, decoder=dataclasses.replace(CONFIG.decoder, rope_scaling={"rope_type": "linear", "factor": 2})
    )
    real = dataclasses.replace(
        CONFIG, decoder=dataclasses.replace(CONFIG.decoder, rope_scaling={"rope_type": "linear", "factor": 2.5})
    )
    assert abstract_model(CONFIG, "float32")[0] is abstract_model(CONFIG, "float32")[0]
    found = [abstract_model(config, dtype)[0] for config in (CONFIG, whole, real) for dtype in ("float32", "bfloat16")]
    assert len({id(graphdef) for graphdef in found}) == 6
    with_cap = abstract_model(dataclasses.replace(CONFIG, mask="causal"), "float32")[0]
    assert with_cap != found[0]


def test_shapes_that_a_caller_changes_are_its_own():
    shapes = abstract_part(Decoder, CONFIG.decoder)
    shapes.clear()
    assert abstract_part(Decoder, CONFIG.decoder)["embedding"].shape == (32, 16)


def test_layers_by_platform():
    """One by one but on TPUs, whose compiler takes too long for that."""
    words = {word: [programs.loop(word, platform) for platform in ("cpu", "gpu", "tpu")] for word in programs.LAYERS}
    assert words == {"auto": ["unroll", "unroll", "scan"], "unroll": ["unroll"] * 3, "scan": ["scan"] * 3}
    with pytest.raises(VlaxError, match=r"run\.layers='scam' is not one of auto, unroll, scan; did you mean 'scan'"):
        programs.loop("scam", "cpu")


def test_remat_by_what_fits(tmp_path, monkeypatch):
    """The first kind that fits, with a twentieth to spare, by the devices' memory; on a CPU none is asked for."""
    sizes = {"none": 100, "dots": 90, "attention": 80, "mlp": 40, "full": 20}
    counted = []

    def cost(self, way, text, chips, cut):
        counted.append((way.rows, chips, cut))
        return Cost(0, sizes[way.remat] * GIB, 1.0)

    monkeypatch.setattr(Counter, "cost", cost)
    made = built(tmp_path)
    assert made.remat == "none (on a CPU)"
    for limit, expected in (
        (106, "none (auto: about 100.0 of 106.0 GiB)"), (104, "dots (auto: about 90.0 of 104.0 GiB)"),
        (43, "mlp (auto: about 40.0 of 43.0 GiB)"),
        (20, "full (auto: about 20.0 of 20.0 GiB, which may not fit; --plan says what would)"),
    ):  # fmt: skip
        monkeypatch.setattr(backward, "limit", lambda device, limit=limit: limit * GIB)
        other = built(tmp_path)
        assert other.remat == expected and (other.train_step is made.train_step) == expected.startswith("none")
    assert built(tmp_path, run__remat="mlp").remat == "mlp (as run.remat says)"
    mesh = types.SimpleNamespace(shape={"data": 2, "fsdp": 2, "tp": 1}, devices=np.array(jax.devices()[:1]))
    backward.choose(made.plan.run, made.plan.stage, made.config, mesh)
    rows = made.plan.stage.batch_size // made.plan.stage.accumulate
    assert counted[0] == (rows, 1, 1) and counted[-1] == (rows // 4, 4, 2)  # parameters are cut over two of four
    with pytest.raises(VlaxError, match=r"run\.remat='some' is not one of none, dots, attention, mlp, full"):
        built(tmp_path, run__remat="some")
