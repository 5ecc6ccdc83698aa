"""With which settings (`text/settings.py`) a stage turns text into ids: those it was started with, else its parents'."""

import dataclasses
import functools
import logging

from vlax.errors import VlaxError
from vlax.model import opening
from vlax.params import distributed
from vlax.text.prompts import Encoder, make
from vlax.text.settings import OLD, Settings, from_dict
from vlax.text.tokenizer import Tokenizer
from vlax.training import checkpoints
from vlax.training.stages import FORKED, StagePlan

PATIENCE = 600.0  # seconds for other hosts to read their tokenizers


def encoder(plan: StagePlan, tokenizer: Tokenizer, templates: str, model: str = "") -> Encoder:
    """The stage's Encoder. A stage that has started keeps what its checkpoints record; a new one takes its parents' date, and
    of an older vlax's parents the ids, too, where they are other ones: the decoder has learned those.

    templates: their name. model: the whole model that the decoder comes from, where it is no parent's.
    """
    made = _chosen(plan, tokenizer, templates, model)
    chosen, with_settings = made.settings, functools.partial(dataclasses.replace, made)
    found = checkpoints.recorded(plan.directory)
    if found is not None:
        kept = from_dict(found.get("text"))
        if kept.own != chosen.own:
            raise VlaxError(f"{plan.directory} was started with other prompts than run.templates, run.system and "
                            "run.interleaved give now; put them back, or start in another --workdir")  # fmt: skip
        return with_settings(settings=kept)
    if made.settings.date:  # the first host's: midnight does not come at the same moment everywhere
        made = with_settings(settings=dataclasses.replace(chosen, date=distributed.meet(made.settings.date, PATIENCE)[0]))
    before_it = [plan.directory / FORKED, *(path / "export" for path in plan.parents.values())]
    known = [str(path) for path in before_it if (path / "manifest.json").exists()]
    for parent in dict.fromkeys([*known, *([model] if model else [])]):
        before = opening.text_of(parent, tokenizer)
        if before is None:
            continue
        if before.version < made.settings.version and made.codec.contextual:
            logging.warning(
                "%s: %s was trained by an older vlax, whose answers began with a blank too many for this tokenizer; %s keeps "
                "that. To be rid of it, train from the first stage on in another --workdir", plan.name, parent, plan.name,
            )  # fmt: skip
            return with_settings(settings=dataclasses.replace(chosen, version=before.version, date=before.date))
        return with_settings(settings=dataclasses.replace(chosen, date=before.date or made.settings.date))
    return made


def _chosen(plan: StagePlan, tokenizer: Tokenizer, templates: str, model: str) -> Encoder:
    """The Encoder that the config asks for; where it says nothing, with the prompts of the whole model."""
    before = (opening.text_of(model, tokenizer) if model else None) or OLD
    picture = before.picture if before.picture and "vision" in plan.stage.init else None
    system = plan.run.system or ("" if plan.run.templates else before.system)
    interleaved = plan.run.interleaved or before.interleaved
    if plan.run.templates or before.prompts is None:
        return make(tokenizer, templates, system, interleaved, picture)
    settings = Settings(system=system, prompts=before.prompts, chat=before.chat, interleaved=interleaved, picture=picture)
    return Encoder(tokenizer, templates, settings)
