"""Accumulation in two programs over MultiSteps' own state: one a micro-batch, which adds to the accumulator, and a small one a
window, which runs the optimizer. MultiSteps in one program would run the optimizer at every micro-batch and choose between its
state before and after: three more copies of what learns."""

import functools
from collections.abc import Mapping
from typing import Any

import jax

from vlax.params import groups
from vlax.training import steps
from vlax.training.steps import State


class Windowed:
    """A train step: `micro` for each micro-batch, `close` after the last one of a window."""

    def __init__(self, micro: Any, close: Any, window: int):
        self.micro, self.close, self.window = micro, close, window
        self._seen: jax.Array | None = None  # the step counter of the state that was returned last
        self._taken = 0  # micro-batches in its window

    def __call__(
        self, state: State, frozen: groups.Params, batch: Mapping[str, jax.Array]
    ) -> tuple[State, dict[str, jax.Array]]:
        # The device is asked once, for a state that comes from elsewhere. A micro-batch that was left out, after which a run
        # ends, makes this count wrong; then `micro` takes nothing and `close` does nothing: nothing is learned wrongly.
        taken = self._taken if state["step"] is self._seen else int(state["opt_state"].mini_step)
        state, metrics = self.micro(state, frozen, batch)
        if taken + 1 == self.window:
            state = self.close(state)
        self._seen, self._taken = state["step"], (taken + 1) % self.window
        return state, metrics

    def _cache_size(self) -> int:
        """Compiled programs of a micro-batch: one a text length."""
        return int(self.micro._cache_size())


def windowed(options: Mapping[str, Any], inner: Any, window: int, out: tuple[State, Any]) -> Windowed:
    """options: of `steps.micro_step`; inner: the optimizer within MultiSteps; out: shardings of state and metrics."""
    micro = functools.partial(steps.micro_step, window=window, **options)
    close = functools.partial(steps.close_window, inner=inner, window=window)
    return Windowed(
        jax.jit(micro, donate_argnums=0, out_shardings=out), jax.jit(close, donate_argnums=0, out_shardings=out[0]), window
    )
