"""What happens before a config runs: logging, processes, the cache of compiled programs."""

import logging
from pathlib import Path

from ml_collections import ConfigDict

from vlax.data.readers import pictures
from vlax.errors import VlaxError
from vlax.process import initialise
from vlax.storage import seal

_HOUSE = str(Path(__file__).parents[1])


def prepare(config: ConfigDict | None) -> ConfigDict:
    """Starts logging, distributed processes and the persistent compilation cache; returns the config. VlaxError without one."""
    if config is None:
        raise VlaxError("--config is missing, e.g. --config=configs/stage3.py")
    handler = logging.StreamHandler()
    handler.addFilter(_worth_reading)
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[handler], force=True)
    return settings(config)


def settings(config: ConfigDict) -> ConfigDict:
    """What of a config holds for the whole process: verification, roots of pictures, other processes, the compilation cache."""
    seal.verify(config.run.verify)
    pictures.allow_outside(config.run.allow_outside)
    if initialise.wanted(config.run):
        initialise.join(config.run.hosts)
    from vlax.storage import compiled  # it brings jax

    compiled.keep(config.run.compilation_cache)
    return config


def _worth_reading(record: logging.LogRecord) -> bool:
    """vlax's own lines; of other packages warnings and errors only."""
    # orbax logs the stacks of its threads' exceptions, which it raises again where the save is waited for.
    known = record.exc_info and (record.name == "asyncio" or "orbax" in Path(record.pathname).parts)
    loud = record.levelno >= logging.WARNING and not known
    return loud or record.pathname.startswith(_HOUSE)
