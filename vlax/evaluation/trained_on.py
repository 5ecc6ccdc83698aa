"""Whether a set that is scored was trained on: by the names of its pictures, and by what they show where that is known."""

import logging
from collections.abc import Sequence
from typing import Any

from vlax.data.readers import leaks
from vlax.data.readers.left import Leaving
from vlax.errors import VlaxError
from vlax.evaluation.runner import TestSet
from vlax.model import exports
from vlax.training import exclusion
from vlax.training.stages import StagePlan


def find(plans: Sequence[StagePlan], sets: Sequence[TestSet]) -> dict[str, list[dict[str, Any]]]:
    """{set: [{"stage", "source", "rows", "name", "hash", "same"}]} of sets that stages were trained on, and a warning of each.

    rows: of the set, whose pictures are in the source, of which so many by "name" and by "hash"; same: whether the source is to
    this day what the export was made from. Sets of the stage's own suites and of run.exclude were left out when it was trained.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    own = {*plans[-1].stage.suites, *plans[-1].run.exclude} if plans else set()
    for test in sets:
        if test.name not in own and isinstance(test.source, Leaving):
            found[test.name] = [one for plan in plans for one in _of_stage(plan, test)]
    found = {name: there for name, there in found.items() if there}
    for text in notes(found):
        logging.warning("WARNING: %s", text)
    return found


def notes(found: dict[str, list[dict[str, Any]]]) -> list[str]:
    """A line for each set."""
    lines = []
    for name, there in found.items():
        where = "; ".join(
            f"{one['rows']:,} rows in {one['source']} of {one['stage']} ({one['name']:,} by name, {one['hash']:,} by "
            "what they show"
            f"{'' if one['same'] else '; its files are not what they were'})" for one in there
        )  # fmt: skip
        lines.append(f"{name} has pictures that the model was trained on: {where}. Its scores say what was remembered, too")
    return lines


def _of_stage(plan: StagePlan, test: TestSet) -> list[dict[str, Any]]:
    specs = {name: spec for name, spec in plan.stage.mixture.items() if spec.get("kind") not in exclusion.DRAWN}
    if not specs or not plan.finished:
        return []
    known = exports.read_manifest(plan.export)["data"]["sources"]
    source = test.source
    assert isinstance(source, Leaving)
    count, looks, (rows, others) = len(test.rows), source.left_looks(), source.left_other_looks()
    keys = [set().union(*(leaks.keys(*called) for called in source.called(index))) for index in range(count)]
    found = []
    for name in specs:
        try:
            mine = exclusion.as_trained(plan, name)
        except VlaxError as error:
            logging.warning("WARNING: %s is not compared with what %s was trained on: %s", test.name, plan.name, error)
            continue
        if not isinstance(mine, Leaving):
            continue
        named = set(mine.met(keys))
        seen = {*mine.seen_in(looks), *(rows[mine.seen_in(others)].tolist() if len(rows) else ())}
        shown = {row for row in seen if row < count} - named
        if named or shown:
            found.append({"stage": plan.name, "source": mine.name, "rows": len(named | shown), "name": len(named),
                          "hash": len(shown), "same": known.get(mine.name) == mine.fingerprint})  # fmt: skip
    return found
