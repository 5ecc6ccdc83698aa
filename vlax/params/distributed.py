"""The processes ("hosts") that run one program together: who writes, and what all of them know.

`gather`, `any_host` and `from_main` are collective: all hosts call them, in the same order, or those that do wait for ever.
"""

import jax
import numpy as np
from jax.experimental import multihost_utils


def hosts() -> int:
    """How many processes there are."""
    return int(jax.process_count())


def host() -> int:
    """This process's number, from 0."""
    return jax.process_index()


def is_main() -> bool:
    """Whether this is the process that prints and writes files."""
    return host() == 0


def gather(array: jax.Array) -> np.ndarray:
    """An array that is sharded over the devices of all hosts, whole, on every host."""
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


def any_host(flag: bool) -> bool:
    """Whether the flag of any host is set: the same answer on all."""
    return bool(multihost_utils.process_allgather(np.array([flag])).any())


def from_main(array: np.ndarray) -> np.ndarray:
    """The first host's array on every host; its shape and dtype are the same everywhere."""
    return np.asarray(multihost_utils.broadcast_one_to_all(array)).astype(array.dtype)
