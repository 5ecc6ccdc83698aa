"""What others hear of a run while it goes on: callbacks of one's own, trackers."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from PIL import Image

from vlax.process import stop
from vlax.process.activity import NOW


@dataclasses.dataclass(frozen=True)
class Shown:
    """A row as the model answers it at a validation: some of those that the small generative evaluation decodes.

    image   of 256 pixels a side at most; None for a row of text
    prompt  the question; "" for a caption
    """

    set: str
    id: str
    image: Image.Image | None
    prompt: str
    prediction: str
    references: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Progress:
    """What was just recorded in metrics.jsonl.

    stage, kind   "stage3"; "train" (every run.log_every updates) or "validation"
    step, of      updates done, and all of the stage
    metrics       loss, token_accuracy, images_per_s, ...; of a validation also `SUITE METRIC`, of the small generative one;
                  of training also learning_rate/GROUP, compile_s, memory_gib/host and, where they are known, mfu and
                  memory_gib/device; docs/trackers.md says what each is
    samples       of a validation: a few rows with what the model says
    """

    stage: str
    kind: str
    step: int
    of: int
    metrics: Mapping[str, float]
    samples: Sequence[Shown] = ()

    def stop(self) -> None:
        """Saves after the step that is under way and ends the run, on all hosts; the same call goes on from there."""
        NOW.request(STOPPED, stop.code(STOPPED))


STOPPED = "a callback"  # who asked for it
Listener = Callable[[Progress], object]


def tell(listeners: Sequence[Listener], progress: Progress) -> None:
    for listener in listeners:
        listener(progress)
