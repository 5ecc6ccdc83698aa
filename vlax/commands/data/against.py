"""The source that `prepare` reads, without the pictures of the evaluation sets in --against."""

import argparse
from collections.abc import Mapping
from typing import Any

from vlax.commands.data.source_argument import source_spec
from vlax.data.readers import leaks, prints
from vlax.data.readers.faults import Faults
from vlax.data.readers.left import Leaving
from vlax.data.sources import open_source
from vlax.rows import Source


def without(args: argparse.Namespace, spec: Mapping[str, Any], faults: Faults) -> Source:
    """By name, and by what they show where somebody has looked at the pictures of all of them; a line says where not."""
    specs = [source_spec(text, args.images, base=args.data_root) for text in args.against]
    held_out = [open_source(one, args.data_root, train=False, faults=Faults(collect=True)) for one in specs]
    drop = leaks.evaluation_pictures(held_out)
    source = open_source(spec, args.data_root, train=args.train, drop_image_ids=drop, faults=faults)
    if isinstance(source, Leaving) and held_out:
        looks = [one.all_looks() if isinstance(one, Leaving) else None for one in held_out]
        known = [look for look in looks if look is not None]
        if source.looks() is None or len(known) < len(looks):
            way_out = "python -m vlax data doctor looks at pictures; then give this again"
            print(f"{source.name} is compared by name alone: {way_out}")
        else:
            source.leave_out(source.near_to(prints.joined(known)))
    return source
