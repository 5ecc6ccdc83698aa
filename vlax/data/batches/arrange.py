"""From a stage's settings to the plan of its batches."""

import math
from typing import Any

from ml_collections import ConfigDict

from vlax.data.batches.lengths import Lengths
from vlax.data.batches.mixture import Mixture
from vlax.data.batches.packing import PackedPlan
from vlax.data.batches.row_plan import BucketPlan, Plan
from vlax.errors import VlaxError


def check(stage: ConfigDict) -> None:
    """Settings that contradict each other, in one line each."""
    buckets = tuple(stage.buckets)
    if buckets and stage.packing > 1:
        raise VlaxError(
            f"stage.buckets={buckets} and stage.packing={stage.packing}: a packed row is stage.text_length long already; "
            "set one of them"
        )
    if any(a >= b for a, b in zip((1, *buckets), buckets, strict=False)):
        raise VlaxError(f"stage.buckets={buckets}: give text lengths of 2 or more that grow, such as (32, 64, 128)")
    if buckets and buckets[-1] != stage.text_length:
        raise VlaxError(
            f"stage.buckets={buckets} ends at {buckets[-1]} and stage.text_length is {stage.text_length}: the last bucket is "
            "the limit of a row, so make them the same"
        )
    if stage.packing < 0:
        raise VlaxError(f"stage.packing={stage.packing}: give the rows that may share a batch row, or 0")
    if stage.images < 1:
        raise VlaxError(f"stage.images={stage.images}: give the pictures that a row may have, at least 1")
    if stage.plan_window < 1:
        raise VlaxError(f"stage.plan_window={stage.plan_window}: a window has at least 1 batch")


def check_slots(stage: ConfigDict, views: int, tiles: int) -> None:
    """VlaxError where a row would have more pictures than a packed row has slots, or where tiles would each be augmented.

    views: slots that a picture takes at most; tiles: parts that it is shown in, beside the whole.
    """
    if 1 < stage.packing < stage.images * views:
        also = f" and run.tiles={views - 1}" if views > 1 else ""
        raise VlaxError(
            f"stage.packing={stage.packing} and stage.images={stage.images}{also}: a row takes a slot for each picture and "
            f"tile; give at least --config.stage.packing={stage.images * views}"
        )
    if tiles and (moving := [kind for kind in stage.augment if kind != "colour"]):
        raise VlaxError(
            f"stage.augment has {', '.join(moving)}, and run.tiles={tiles} cuts pictures in parts, each of which would be "
            "changed by itself; leave one of them out"
        )


def check_positions(stage: ConfigDict, config: Any) -> None:
    """VlaxError when a decoder with a learned table of positions has too few for an image and stage.text_length.

    config: VLMConfig, of a room that this one does not import. Packing changes nothing: positions restart with every example.
    """
    decoder, image = config.decoder, config.tokens_per_image * stage.images * config.views
    if decoder.rope_theta is None and image + stage.text_length > decoder.max_positions:
        raise VlaxError(
            f"the decoder has a table of {decoder.max_positions} positions; {image} image tokens and "
            f"stage.text_length={stage.text_length} need {image + stage.text_length}. Set --config.stage.text_length to "
            f"{decoder.max_positions - image} or less"
        )


def make(
    stage: ConfigDict, mixture: Mixture, lengths: Lengths, rows: int, per_update: int, more: int = 0, views: int = 1
) -> tuple[Plan, int]:
    """(the stage's plan, its length in updates)

    rows        of the global batch that a train step takes
    per_update  train steps an update
    more        updates that were added to a stage when it was finished: the rows before them stay where they were
    views       slots that a picture takes at most

    Without stage.steps, the stage is stage.epochs long; the last update is filled from the next epoch.
    """
    wanted = math.ceil(round(stage.epochs * mixture.epoch_size, 6))
    updates = stage.steps or math.ceil(wanted / (rows * per_update))
    batch = mixture, rows, stage.text_length
    window = {"lengths": lengths, "overlong": stage.overlong, "window": stage.plan_window}
    if stage.packing > 1:
        packed = PackedPlan(
            *batch, stage.packing, images=stage.images, views=views, stop=0 if stage.steps else wanted, **window
        )
        return packed, more + (stage.steps or math.ceil(packed.batches(wanted) / per_update))
    if stage.buckets:
        stop = updates * per_update * rows
        bucketed = BucketPlan(*batch, buckets=tuple(stage.buckets), stop=stop, beyond=more > 0, **window)
        return bucketed, updates + more
    return Plan(*batch), updates + more
