"""With which settings (`text/settings.py`) a stage turns text into ids: those it was started with, else its parents'."""

import dataclasses
import functools
import logging

from etils import epath

from vlax.errors import VlaxError
from vlax.model import exports
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

    templates: their name. model: the vlax export that the decoder comes from, where it is no parent's.
    """
    made = _chosen(plan, tokenizer, templates, model)
    chosen, with_settings = made.settings, functools.partial(dataclasses.replace, made)
    found = checkpoints.recorded(plan.directory)
    if found is not None:
        before = from_dict(found.get("text"))
        if before.own != chosen.own:
            raise VlaxError(f"{plan.directory} was started with other prompts than run.templates, run.system and "
                            "run.interleaved give now; put them back, or start in another --workdir")  # fmt: skip
        return with_settings(settings=before)
    if made.settings.date:  # the first host's: midnight does not come at the same moment everywhere
        made = with_settings(settings=dataclasses.replace(chosen, date=distributed.meet(made.settings.date, PATIENCE)[0]))
    before_it = [plan.directory / FORKED, *(path / "export" for path in plan.parents.values())]
    for parent in dict.fromkeys([*before_it, *([epath.Path(model)] if model else [])]):
        if not (parent / "manifest.json").exists():
            continue
        before = from_dict(exports.read_manifest(parent).get("text"))
        if before.version < made.settings.version and made.codec.contextual:
            logging.warning(
                "%s: %s was trained by an older vlax, whose answers began with a blank too many for this tokenizer; %s keeps "
                "that. To be rid of it, train from the first stage on in another --workdir", plan.name, parent, plan.name,
            )  # fmt: skip
            return with_settings(settings=dataclasses.replace(chosen, version=before.version, date=before.date))
        return with_settings(settings=dataclasses.replace(chosen, date=before.date or made.settings.date))
    return made


def _chosen(plan: StagePlan, tokenizer: Tokenizer, templates: str, model: str) -> Encoder:
    """The Encoder that the config asks for; where it says nothing, with the prompts of the whole model's export."""
    before = from_dict(exports.read_manifest(model).get("text")) if model else OLD
    system = plan.run.system or ("" if plan.run.templates else before.system)
    interleaved = plan.run.interleaved or before.interleaved
    if plan.run.templates or before.prompts is None:
        return make(tokenizer, templates, system, interleaved)
    settings = Settings(system=system, prompts=before.prompts, chat=before.chat, interleaved=interleaved)
    return Encoder(tokenizer, templates, settings)
