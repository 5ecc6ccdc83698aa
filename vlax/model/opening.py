"""Opens a whole model, wherever it comes from: a vlax export, a LLaVA, PaliGemma, SmolVLM or Gemma 3 directory, or a hub id."""

from pathlib import Path
from typing import Any

import jax
from etils import epath

from vlax.errors import VlaxError
from vlax.model import api, exports
from vlax.model.from_pretrained import from_pretrained
from vlax.models import quantised
from vlax.pretrained.reading.around import pictures
from vlax.rows import Row, Turn
from vlax.storage import compiled, hub, state
from vlax.text import settings
from vlax.text.prompts import Encoder
from vlax.text.settings import Settings
from vlax.text.tokenizer import Tokenizer

LAYOUTS = "LLaVA, LLaVA-OneVision, PaliGemma, SmolVLM, Gemma 3 or InternVL"
KINDS = f"a vlax export (WORKDIR/STAGE/export), a directory in the layout of {LAYOUTS}, or a hub id"
_TRIAL = Row("trial", "", "question", (Turn("how many dogs", "a pair of them"),), None)


def is_export(where: str | epath.PathLike) -> bool:
    """Whether `where` is a vlax export. VlaxError for a path at which there is no model: a hub id alone need not be there."""
    path = epath.Path(where)
    if (path / "manifest.json").exists():
        return True
    # org/export is no name of a model, and what somebody types who has not trained the stage yet.
    if path.name == "export" or not ((path / "config.json").exists() or _may_be_hub_id(where)):
        raise VlaxError(
            f"{where} is not a finished vlax export: it has no manifest.json. Exports are WORKDIR/STAGE/export; a "
            "directory in the layout of LLaVA, PaliGemma, SmolVLM or Gemma 3 has a config.json, and a hub id is org/name"
        )
    return False


def _may_be_hub_id(where: str | epath.PathLike) -> bool:
    return isinstance(where, str) and bool(hub.HUB_ID.fullmatch(where)) and not Path(where).expanduser().exists()


def load(
    where: str, *, dtype: str = "float32", mesh: jax.sharding.Mesh | None = None, templates: str = "", quantise: str = ""
) -> api.Model:
    """The Model of a vlax export, of a directory in the layout of LLaVA, PaliGemma, SmolVLM or Gemma 3, or of a hub id.

    dtype: compute and storage dtype, "float32" or "bfloat16". mesh: default, all devices along the data axis. templates: prompt
    templates of a model that brings none; "" is what `templates_of` finds. An export keeps its own. quantise: "int8" or "nf4"
    holds the matrices in few bits while decoding (`Model.quantised`).
    VlaxError when there is no such model.
    """
    quantised.check(quantise, "quantise")
    compiled.keep_by_default()
    if is_export(where):
        return _held(api.load(where, dtype=dtype, mesh=mesh), where, quantise)
    model = from_pretrained(str(where), dtype=dtype, mesh=mesh, templates=templates or "plain")
    if not templates:
        own, tokenizer = templates_of(where, model.encoder.tokenizer), model.encoder.tokenizer
        model.encoder = Encoder(tokenizer, own, text_of(where, tokenizer) or Settings())
        model.manifest |= {"template_name": own, "text": model.encoder.settings.to_dict()}
    return _held(model, where, quantise)


def _held(model: api.Model, where: str, kind: str) -> api.Model:
    """A Model that nobody else has yet, told where it is from, its matrices quantised one after the other."""
    dtype = next(iter(model.params.values())).dtype
    model.where, model.held, model.params = str(where), kind, quantised.quantise(model.params, kind, dtype)
    return model


def templates_of(where: str | epath.PathLike, tokenizer: Tokenizer) -> str:
    """The prompt templates that a whole model was trained with: what its export or its config.json says; else "chat" where the
    tokenizer brings a chat template that vlax can render, and "plain" where not."""
    if is_export(where):
        return str(exports.read_manifest(where)["template_name"])
    said = _said(where)
    if said.get("templates"):
        return str(said["templates"])
    return "chat" if tokenizer.chat_template and _renders(tokenizer) else "plain"


def text_of(where: str | epath.PathLike, tokenizer: Tokenizer) -> Settings | None:
    """How a whole model turns text into ids beside its templates' name, as its export or its config.json says; of one that vlax
    has not written, what its kind has around pictures, None where that is nothing. tokenizer: the model's.

    VlaxError where the tokenizer lacks a token of those.
    """
    if is_export(where):
        return settings.from_dict(exports.read_manifest(where).get("text"))
    said = _said(where).get("text")
    if said:
        return settings.from_dict(said)
    around = pictures(str(where), tokenizer.backend_tokenizer)
    return Settings(interleaved=True, picture=around) if around else None


def _said(where: str | epath.PathLike) -> dict[str, Any]:
    """The entry "vlax" of a config.json, which exports of vlax have."""
    file = hub.local_directory(str(where), flag="--config.run.model=DIR", weights=False) / "config.json"
    said = state.read(file, "download it again").get("vlax") or {}
    return said if isinstance(said, dict) else {}


def _renders(tokenizer: Tokenizer) -> bool:
    """Whether question and answer of a trial row are in what the chat template writes: those of multimodal processors take
    lists in place of texts."""
    try:
        tokens, _ = Encoder(tokenizer, "chat").encode(_TRIAL)
    except VlaxError:
        return False
    text = " ".join(tokenizer.decode(tokens).split())
    return all(said in text for said in (_TRIAL.turns[0].question, _TRIAL.turns[0].answer))
