"""The small generative evaluation while training: the stage's suites on a few rows of their validation sets."""

import dataclasses
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from PIL import Image

from vlax.errors import VlaxError
from vlax.evaluation import predictions, runner, scoring
from vlax.images import as_rgb
from vlax.model.api import Model
from vlax.params import groups
from vlax.rows import Row
from vlax.scores.captions import java_on_path
from vlax.suites import protocol
from vlax.training import session
from vlax.training.listeners import Shown

SHOWN = 4  # rows of a suite


def sampler(s: session.Session) -> Callable | None:
    """`sample(state, frozen) -> ({"NAME CIDEr": ..., "NAME accuracy": ...}, rows to show)`, the first metric of each suite of
    the stage, and SHOWN of its rows, the same ones each time; None where there is no suite or no row to decode."""
    stage, run = s.plan.stage, s.plan.run
    if not stage.suites or not stage.generate_samples:
        return None
    suites = protocol.suites({name: content.to_dict() for name, content in stage.suites.items()})
    suites = [dataclasses.replace(suite, metrics=suite.metrics[:1]) for suite in suites]
    sets = runner.open_sets(suites, run.data_root, stage.generate_samples, "validation")  # never on what is reported
    if any(test.suite.is_caption for test in sets):
        with java_on_path():  # a missing Java is an error now, not at the first validation
            pass
    model = Model(s.config, {}, s.encoder, s.graphdef, s.mesh, {})
    with ThreadPoolExecutor(runner.THREADS) as pool:
        asked = [(test, runner.requests(model, test, test.rows, pool)) for test in sets]  # pictures are decoded once

    scorers: dict[str, scoring.Scorer] = {}  # each keeps its references' tokens from one validation to the next
    pictures = {(test.name, i): _small(test.rows[i]) for test in sets for i in _some(len(test.rows))}

    def sample(state: Mapping[str, Any], frozen: groups.Params) -> tuple[dict[str, float], list[Shown]]:
        params = groups.join(state["params"], frozen)
        out, shown = {}, []
        for test, requests in asked:
            suite = test.suite
            texts = [suite.finish(text) for batch in runner.predictor(model, suite).texts(params, requests) for text in batch]
            lines = [predictions.line("", test.name, row, text) for row, text in zip(test.rows, texts, strict=True)]
            name = scoring.headline(suite)
            for i in _some(len(lines)):
                line, image = lines[i], pictures[test.name, i]
                words = line["question"], line["prediction"], tuple(line["references"])
                shown.append(Shown(test.name, line["id"], image, *words))
            try:
                if test.name not in scorers:
                    scorers[test.name] = scoring.Scorer(suite, lines)
                with scorers[test.name] as score:
                    out[f"{test.name} {name}"] = score(lines).scores[name]
            except VlaxError as error:  # a score that is missing must not cost the updates since the last checkpoint
                logging.warning("%s %s was not computed: %s", test.name, name, error)
        return out, shown

    return sample


def _some(rows: int) -> list[int]:
    """SHOWN of so many rows, evenly spaced."""
    return [i * rows // min(SHOWN, rows) for i in range(min(SHOWN, rows))]


def _small(row: Row) -> Image.Image | None:
    """The first picture, as it is looked at."""
    if row.picture is None:
        return None
    image = as_rgb(row.picture.open())
    image.thumbnail((256, 256))
    return image
