"""What it costs to run a model of mask `image_bidirectional` in a stock class, which masks causally: on its own test rows."""

import dataclasses

import numpy as np
from etils import epath

from vlax.data.sources import open_source
from vlax.decoding.options import DecodeConfig
from vlax.decoding.predict import Request
from vlax.errors import VlaxError
from vlax.model.api import Model
from vlax.models.build import abstract_model
from vlax.rows import Row, RowFault
from vlax.storage import state
from vlax.text import places

ROWS, BATCH, TOKENS = 16, 8, 32


def cost(directory: epath.PathLike, model: Model, rows: int = ROWS) -> str:
    """One sentence: in how many of the first rows of each test set both masks have the same greedy answer.

    directory: the vlax export of `model`; its test rows are those that it was evaluated on, by eval/scores.json beside it.
    """
    if not rows:
        return "What that costs was not measured: it was switched off."
    found, reason = test_rows(epath.Path(directory), model, rows)
    if not found:
        return f"What that costs was not measured: {reason}."
    stock = dataclasses.replace(model.config, mask="causal")
    other = dataclasses.replace(model, config=stock, graphdef=abstract_model(stock, next(iter(model.params.values())).dtype)[0])
    asked = [request(model, row) for row in found]
    mine, theirs = answers(model, asked), answers(other, asked)
    same = sum(a == b for a, b in zip(mine, theirs, strict=True))
    first = next((f': "{b}" in place of "{a}"' for a, b in zip(mine, theirs, strict=True) if a != b), "")
    return f"On {len(asked)} of its own test rows {same} greedy answers stay the same without the mask{first}."


def request(model: Model, row: Row) -> Request:
    encoder, preprocess = model.encoder, model.config.tower.preprocess
    question = places.shown_in(row, 0, encoder.settings)
    prompt = encoder.asked(encoder.prompt_text(row.task, question), len(row.pictures))
    return Request(prompt.tokens, [picture.pixels(preprocess) for picture in row.pictures], 0, prompt.before)


def answers(model: Model, asked: list[Request]) -> list[str]:
    predictor = model.predictor(DecodeConfig(max_new_tokens=TOKENS), BATCH)
    return [text for batch in predictor.texts(model.params, asked) for text in batch]


def test_rows(directory: epath.Path, model: Model, count: int) -> tuple[list[Row], str]:
    """(the first rows with a picture of each set that the model was evaluated on, "") or ([], why there are none)"""
    file = directory.parent / "eval" / "scores.json"
    if not file.exists():
        return [], "the model was not evaluated, so that its test rows are not known"
    said = state.read(file, "mend or delete it")
    if said.get("model", {}).get("checksums") != model.manifest.get("checksums"):
        return [], "eval/scores.json is of other weights"
    found: list[Row] = []
    for name, data in said.get("where", {}).get("sets", {}).items():
        try:
            source = open_source(data["test"], said["where"].get("data_root", ""), train=False)
            rows = (source[int(i)] for i in np.arange(min(count, len(source))))
            found += [row for row in rows if row.picture]
        except (KeyError, RowFault, VlaxError) as error:
            return [], f"the rows of {name} cannot be opened ({error})"
    return found, "" if found else "its test rows have no pictures"
