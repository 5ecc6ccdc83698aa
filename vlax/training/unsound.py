"""Why a state is not worth saving."""

from collections.abc import Mapping

from vlax.errors import VlaxError


class Unsound(VlaxError):
    """What the parameters have become is not worth saving."""


def loss(stage: str, micro: int, values: Mapping[str, float], rows: str, latest: int | None) -> Unsound:
    """A loss that is not finite, of the step `micro` and its rows; latest: the newest checkpoint."""
    norms = ", ".join(f"{k.split('/')[1]} {v:g}" for k, v in values.items() if k.startswith("grad_norm/"))
    kept = f"the checkpoint at step {latest} is intact" if latest is not None else "there is no checkpoint yet"
    return Unsound(
        f"stage {stage} stopped at step {micro}: loss {values['loss_sum'] / values['tokens']:g}, gradient norms: {norms}; "
        f"rows: {rows}. {kept}. Lower --config.stage.learning_rate, or look at those rows"
    )
