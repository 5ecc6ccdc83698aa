"""The tiny chain that many test files share: the embedded configs with everything shrunk, trained once a session."""

import atexit
import contextlib
import fcntl
import functools
import importlib
import io
import os
import pathlib
import shutil
import signal
import tempfile

# Tiny programs run for microseconds and compile for seconds: a third as long with these.
FAST_COMPILE = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true --xla_cpu_use_fusion_emitters=false"
os.environ.setdefault("XLA_FLAGS", FAST_COMPILE)
if "VLAX_CACHE" not in os.environ:  # of this session and all that it starts, not of HOME
    os.environ["VLAX_CACHE"] = tempfile.mkdtemp(prefix="vlax-cache-")
    atexit.register(shutil.rmtree, os.environ["VLAX_CACHE"], ignore_errors=True)

# nohup, and a shell that starts a job in the background, have them ignored, which every process that a test starts inherits.
for number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, signal.SIG_DFL)

import jax  # noqa: E402
import pytest  # noqa: E402

REPO = pathlib.Path(__file__).resolve().parent.parent

jax.config.update("jax_compilation_cache_dir", str(REPO / ".cache" / "xla"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)

SIZES = {"train": 24, "val": 6, "test": 8}  # scenes
STEPS, BATCH = 4, 8
LONGEST = ("test_walkthrough", "test_evaluation", "test_export", "test_multidevice", "test_evaluation_hosts")


def shrink(config):
    """A config of configs/ with 16-pixel images, one-layer transformers of width 16, a few scenes and 4 updates a stage."""
    run = config.run
    for source in run.bpe_text.values():
        if source.kind == "scenes":
            source.size = 200
    run.compilation_cache, run.tensorboard, run.log_every = "", False, 2
    run.shapes.vision.update(image_size=16, patch_size=8, width=16, layers=1, heads=2, mlp_dim=16)
    small = {"width": 16, "heads": 2, "kv_heads": 1, "head_dim": 8, "mlp_dim": 16}
    run.shapes.decoder.update(layers=1, **small)
    run.shapes.captioner.update(layers=1, **small)
    for stage in (config.stage, *config.parents.values()):
        stage.steps, stage.batch_size, stage.generate_samples, stage.eval_batches, stage.reference = STEPS, BATCH, 0, 1, ""
        stage.text_length = 96 if stage.name == "stage0_decoder" else 40
        stage.overlong, stage.eval_every = "cut", 0
        stage.learning_rate = {name: 3e-3 for name in stage.learning_rate}  # alike, so that stages share compiled programs
        sources = [*stage.mixture.values(), *stage.validation.values()]
        for suite in stage.suites.values():
            suite.decoding.max_new_tokens = 6
            suite.metrics = [name for name in suite.metrics if name != "METEOR"]  # each start of its Java takes 15 s of a core
            sources += suite.data.values()
        for source in sources:
            if source.kind == "scenes":
                source.size = SIZES[source.split]
    return config


def tiny(stage="stage3", **fields):
    """The shrunk config of configs/STAGE.py; `fields` such as `stage__steps=6` or `run__seed=1` replace single values."""
    name, _, variant = stage.partition(":")
    module = importlib.import_module(f"configs.{name}")
    config = shrink(module.get_config(variant) if variant else module.get_config())
    for path, value in fields.items():
        *parts, last = path.split("__")
        at = config
        for part in parts:
            at = at[part]
        with at.unlocked():
            at[last] = value
    return config


def train(config, workdir, **options) -> str:
    """Runs a chain in this process; returns what it printed. options: of `chain.run`."""
    from vlax.evaluation import sampling
    from vlax.training import chain

    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        chain.run(config, str(workdir), sampling.sampler, **options)
    return out.getvalue()


@pytest.fixture(scope="session", autouse=True)
def _compiled_once():
    """Tests train the same tiny stages again and again; the programs of more than one are kept."""
    from vlax.training import programs

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(programs, "_jitted", functools.lru_cache(maxsize=24)(programs._jitted.__wrapped__))
        yield


@pytest.fixture(scope="session", autouse=True)
def _undrawn():
    """A quarter of a tiny stage would go into its curves.png. Those of the README's commands are drawn, in other processes."""
    from vlax.training import chain

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chain, "draw", lambda config, workdir: None)
        yield


def pytest_collection_modifyitems(items):
    """The longest files first (pytest-xdist hands them out in this order), so that none of them is the last one to end."""
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """(config, workdir) of the tiny chain, finished up to stage 4; nobody writes into its stages. Of several workers of
    pytest-xdist one trains it, and each has a copy."""
    config, base, workdir = tiny("stage4"), tmp_path_factory.getbasetemp(), tmp_path_factory.mktemp("trained") / "w"
    original = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "trained-once"
    original.mkdir(exist_ok=True)
    with (original / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (original / "w" / "stage4" / "export").exists():
            train(config, original / "w")
    shutil.copytree(original / "w", workdir)
    return config, workdir
