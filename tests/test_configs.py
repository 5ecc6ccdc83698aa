"""Every config builds; every field has its comment; the full-size chain has the shapes of SPEED.md's reference model."""

import ast
import functools
import importlib
import inspect
import re
import subprocess
import sys

import pytest
from conftest import REPO, tiny

from configs import base
from vlax.errors import VlaxError
from vlax.params import groups, sharding
from vlax.suites import protocol
from vlax.training import optimizer, origins, planning, programs, ranges, session, stages

MODULES = {p.stem: importlib.import_module(f"configs.{p.stem}") for p in (REPO / "configs").glob("*.py")}
NAMES = sorted(name for name, module in MODULES.items() if hasattr(module, "get_config"))
CHAIN = [name for name in NAMES if re.fullmatch(r"stage[1-4]", name)]


def variants(name) -> list[str]:
    """A config's variants, as its own error message lists them."""
    module = importlib.import_module(f"configs.{name}")
    if not inspect.signature(module.get_config).parameters:
        return []
    with pytest.raises(ValueError, match="unknown variant 'nonsense'") as error:
        module.get_config("nonsense")
    found = re.findall(r"[\w.-]+", re.split(r"variants are|has", str(error.value))[-1].replace(" and ", " "))
    assert len(found) > 1
    return found


@pytest.mark.parametrize("name", NAMES)
def test_every_config_and_variant_builds_a_chain(name):
    module = importlib.import_module(f"configs.{name}")
    for variant in (None, *variants(name)):
        config = module.get_config() if variant is None else module.get_config(variant)
        plans = stages.chain(config, "/nowhere")
        assert plans[-1].name == config.stage.name and len({plan.name for plan in plans}) == len(plans)
        for plan in plans:
            session.check_stage(plan.stage)
            if name != "finetune":  # which guesses some of them
                ranges.check("stage", plan.stage)
            assert plan.stage.keys() == base.stage("x").keys() and plan.run.keys() == base.run().keys()
            optimizer.make(programs.optimizer_config(plan.stage, 10), {}, dict(plan.stage.learning_rate))
            for suite, content in plan.stage.suites.items():
                protocol.from_dict(suite, content.to_dict())


def test_every_field_has_its_comment():
    lines = (REPO / "configs" / "base.py").read_text().splitlines()
    tree, bare = ast.parse("\n".join(lines)), []
    for function in tree.body:
        if not isinstance(function, ast.FunctionDef) or function.name not in ("run", "stage"):
            continue
        for node in function.body:
            target = node.targets[0] if isinstance(node, ast.Assign) else None
            if isinstance(target, ast.Attribute) and "#" not in lines[node.end_lineno - 1] + lines[node.lineno - 2]:
                bare.append(target.attr)
    assert bare == ["name"]


@functools.cache
def shapes(model):
    return planning.whole(model, "bfloat16")  # which tests/test_planning.py compares with what a model has


@pytest.mark.parametrize("name", CHAIN)
def test_shapes_at_full_size(name):
    """908.9 M parameters (SPEED.md), without allocating one of them."""
    config = importlib.import_module(f"configs.{name}").get_config("0.9b")
    config.stage.init = {"vision": "fresh", "projector": "fresh", "decoder": "fresh"}  # the shapes that the backbones have
    plan = stages.chain(config, "/nowhere")[-1]
    model = origins.model_config(plan, origins.find(plan), 151_665)
    abstract = shapes(model)
    assert groups.count(abstract) == pytest.approx(908.9e6, rel=1e-3)
    assert model.tokens_per_image == 256
    assigned = groups.assign(abstract, plan.stage.trainable)
    learns = ("projector",) if name in ("stage1", "stage2") else ("projector", "decoder")
    sizes, trained = (
        {top: groups.count({p: v for p, v in part.items() if p.startswith(top)}) for top in ("vision", "projector", "decoder")}
        for part in (abstract, groups.split(abstract, assigned)[0])
    )
    assert trained == {top: size if top in learns else 0 for top, size in sizes.items()}
    assert all(sharding.spec(path) is not None for path in abstract)
    table = groups.table(abstract, assigned, dict(plan.stage.learning_rate))
    assert re.search(r"vision +frozen", table) and f"{groups.count(abstract):,}" in table
    assert (re.search(r"decoder +frozen", table) is None) == ("decoder" in learns)


def test_the_defaults_of_the_recipe():
    rates = {n: dict(tiny(n).stage.trainable) for n in CHAIN}
    assert rates["stage1"] == rates["stage2"] == {"projector": "^projector/"}
    assert rates["stage3"] == rates["stage4"] == {"projector": "^projector/", "decoder": "^decoder/"}


@pytest.mark.parametrize(
    ("fields", "text"),
    (
        ({"stage__learning_rate": {"projektor": 1e-3}}, "group 'projector' has a pattern or a learning rate, but not both"),
        ({"stage__accumulation": "scann"}, "stage.accumulation='scann' is not one of multisteps, scan; did you mean 'scan'?"),
        ({"stage__select": "bset"}, "stage.select='bset' is not one of last, best; did you mean 'best'?"),
        ({"stage__accumulate": 3}, "stage.batch_size=8 is not a multiple of stage.accumulate=3"),
        ({"stage__learning_rate": {"projector": -1e-3}}, "stage.learning_rate.projector=-0.001: give 0 or more; it is set"),
        ({"stage__learning_rate": {"projector": float("nan")}}, "stage.learning_rate.projector=nan: give 0 or more"),
        ({"stage__warmup": 1.5}, "stage.warmup=1.5: give from 0 to 1"),
        ({"stage__beta2": 1.0}, "stage.beta2=1.0: give from 0 to less than 1"),
        ({"stage__accumulate": 0}, "stage.accumulate=0: give 1 or more"),
        ({"stage__eval_batches": 0}, "stage.eval_batches=0: give 1 or more"),
        ({"run__log_every": 0}, "run.log_every=0: give 1 or more"),
        ({"run__dtype": "float8"}, "run.dtype='float8' is not one of float32, bfloat16"),
        ({"run__mesh__data": 3}, "mesh (data, fsdp, tp) = (3, 1, 1) needs 3 devices; there are 1. Set --config.run"),
        ({"run__mesh__data": 0}, "sizes are positive, and at most one is -1"),
        ({"stage__init": {"vision": "fresh"}}, "stage stage1: init is about vision, projector and decoder, not nothing"),
        ({"run__templates": "plian"}, "unknown prompt template 'plian'; there are plain, instruct"),
        ({"run__tokenizer": "/no/such/dir"}, "not a hub id of the form org/name; pass --config.run.tokenizer=DIR"),
        ({"run__mask": "casual"}, "casual"),
        ({"stage__mixture": {}}, "stage stage1 has no training data: stage.mixture is empty"),
        ({"stage__epoch_of": "human"}, "stage.epoch_of='human' is no source of the mixture (ai)"),
        ({"stage__overlong": "crop"}, "stage.overlong='crop' is not one of drop, cut"),
        ({"stage__trainable": {"projector": "^projektor/"}}, "matches no parameter"),
        ({"run__shapes__decoder__vocab_size": 100}, "the decoder's embedding 100 rows; they must fit"),
        ({"run__shapes__projector__kind": "lineal"}, "run.shapes: projector kind 'lineal' is not one of linear, mlp"),
        ({"run__shapes__decoder__heats": 2}, "run.shapes: got an unexpected keyword argument 'heats'"),
    ),
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)  # fmt: skip
def test_mistakes_are_found_before_anything_compiles(fields, text, tmp_path):
    plan = stages.chain(tiny("stage1", **fields), tmp_path)[-1]
    with pytest.raises(VlaxError, match=re.escape(text)):
        session.build(plan)


def test_every_number_of_a_config_has_its_range_or_is_known_to_have_none():
    """A field that is added later is asked about here."""
    free = {"mesh.data", "mesh.fsdp", "mesh.tp", "hosts.count", "hosts.index", "hosts.timeout", "keep.last", "keep.best",
            "keep.hours", "lora.alpha", "packing", "images", "plan_window"}  # fmt: skip
    for part, table, values in (("run", ranges.RUN, base.run()), ("stage", ranges.STAGE, base.stage("any"))):
        numbers = {name for name, _ in ranges._numbers(values) if not name.startswith("shapes.")}
        known = {name for name in numbers if name in table or name.partition(".")[0] in table}
        assert numbers - known <= free and set(table) - {"lora.rank"} <= set(values), part


def test_two_sources_need_an_epoch(tmp_path):
    plan = stages.chain(tiny("stage2", stage__epoch_of=""), tmp_path)[-1]
    with pytest.raises(
        VlaxError, match=r"the mixture has 2 sources: say with stage.epoch_of whose pass is an epoch: ai, human"
    ):
        session.build(plan)


def test_configs_read_in_an_instant():
    """Suites included, they import ml_collections and nothing that takes longer: `--config` is parsed before anything else."""
    heavy = "{'jax', 'numpy', 'vlax.scores'} & set(sys.modules)"
    code = f"import sys, {', '.join(f'configs.{name}' for name in NAMES)}; print({heavy})"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr
