"""The processes ("hosts") that run one program together: who writes, and what all of them know.

`gather`, `any_host` and `from_main` are collective: all hosts call them, in the same order, or those that do wait for ever.
`meet` has a limit: it is a meeting of the hosts' programs by way of JAX's coordination service, and no device takes part.
"""

import contextlib
import itertools
from typing import Any

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


class Missing(Exception):
    """A host did not come to a meeting. `host` is its number."""

    def __init__(self, host: int):
        super().__init__(f"host {host} did not come")
        self.host = host


_meetings = itertools.count()


def _client() -> Any:  # JAX has no public name for its key-value store
    from jax._src import distributed

    return distributed.global_state.client


def meet(word: str, limit: float) -> list[str]:
    """Every host's word, by host, the same list on all of them. Raises Missing where one says nothing for `limit` seconds.

    A step of training costs one meeting: the programs wait for each other, the devices go on with what they were given.
    """
    if hosts() == 1:
        return [word]
    client, number = _client(), next(_meetings)
    client.key_value_set(f"vlax/meeting/{number}/{host()}", word)
    words = []
    for other in range(hosts()):
        try:
            words.append(client.blocking_key_value_get(f"vlax/meeting/{number}/{other}", int(limit * 1000)))
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise
            raise Missing(other) from None
    if number > 1:  # all have come to this meeting, so all have left the one before it
        client.key_value_delete(f"vlax/meeting/{number - 2}/{host()}")
    return words


def tell(name: str, word: str) -> None:
    """Leaves a word for the other hosts, beside all meetings; nothing where there is one host."""
    if hosts() > 1:
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # the service is gone: nobody is there to be told
            _client().key_value_set(f"vlax/{name}/{host()}", word, allow_overwrite=True)


def told(name: str) -> dict[int, str]:
    """What the hosts have left so far, {host: word}."""
    if hosts() == 1:
        return {}
    try:
        found = _client().key_value_dir_get(f"vlax/{name}/")
    except jax.errors.JaxRuntimeError:
        return {}
    return {int(key.rpartition("/")[2]): word for key, word in found}


def leave_together(limit: float) -> None:
    """Waits until every host is here, or `limit` seconds are over."""
    with contextlib.suppress(jax.errors.JaxRuntimeError):
        _client().wait_at_barrier("vlax/leave", int(limit * 1000))
