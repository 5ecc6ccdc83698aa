"""What train.py and eval.py share: set-up of processes and caches, and errors without a stack trace."""

import logging
import os
import sys
from collections.abc import Callable

import jax
from absl import app, flags
from ml_collections import config_flags

from vlax.errors import VlaxError


def run(main: Callable) -> None:
    """absl's app.run with short errors: exit 2 for a mistake of the user, whose text says how to mend it."""
    try:
        app.run(lambda argv: _guarded(main, argv), flags_parser=_parse_flags)
    except VlaxError as error:
        _complain(error)


def _guarded(main: Callable, argv) -> None:
    logging.getLogger().setLevel(logging.INFO)
    logging.getLogger("absl").setLevel(logging.WARNING)
    try:
        main(argv)
    except VlaxError as error:
        _complain(error)


def _complain(error: Exception) -> None:
    sys.stdout.flush()
    print(f"vlax: error: {error}", file=sys.stderr)
    sys.exit(2)


def _parse_flags(argv):
    """Flags, where a wrong field, type or file of --config is one line instead of config_flags' stack."""
    try:
        return flags.FLAGS(argv, known_only=False)
    except flags.UnrecognizedFlagError as error:
        raise VlaxError(f"{error}. See --help") from None
    except flags.Error as error:
        raise VlaxError(str(error).strip().splitlines()[-1]) from None
    except (AttributeError, KeyError, TypeError, ValueError, OSError, ImportError) as error:
        raise VlaxError(_first_line(error)) from None


def _first_line(error: Exception) -> str:
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    return str(text).strip().splitlines()[0] if str(text).strip() else type(error).__name__


def define_config(example: str):
    """The --config flag."""
    return config_flags.DEFINE_config_file(
        "config", None, f"Config file, e.g. {example}; a variant follows a colon", lock_config=True
    )


def prepare(config) -> None:
    """Distributed start-up and the persistent compilation cache."""
    if config.run.distributed:
        jax.distributed.initialize()
    if config.run.compilation_cache:
        jax.config.update("jax_compilation_cache_dir", os.path.expanduser(config.run.compilation_cache))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
