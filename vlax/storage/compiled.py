"""Compiled programs, kept between processes: one place for training, `vlax.load`, `ask` and serve."""

import os

import jax

DIRECTORY = "~/.cache/vlax/xla"
LEAST = 0.3  # seconds of compilation from which on a program is kept

_chosen = False


def keep(directory: str = DIRECTORY) -> None:
    """From now on compiled programs are kept there; "" keeps none."""
    global _chosen
    _chosen = True
    if directory:
        jax.config.update("jax_compilation_cache_dir", os.path.expanduser(directory))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", LEAST)


def keep_by_default() -> None:
    """`keep`, unless somebody has chosen before, JAX_COMPILATION_CACHE_DIR and jax.config included."""
    if not _chosen and jax.config.values["jax_compilation_cache_dir"] is None:
        keep()
