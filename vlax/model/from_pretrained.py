"""`vlax.from_pretrained`: a Model from Hugging Face checkpoints, without training anything."""

from typing import Any

import jax
import jax.numpy as jnp

from vlax.errors import VlaxError
from vlax.model.api import Model
from vlax.models.build import DTYPES, abstract_model, fresh_part
from vlax.models.projector import ProjectorConfig
from vlax.models.vlm import VLMConfig
from vlax.params import groups, sharding
from vlax.pretrained.reading import loader
from vlax.pretrained.reading.around import pictures
from vlax.text.prompts import make
from vlax.text.tokenizer import check_vocabulary, load_tokenizer


def from_pretrained(
    whole: str = "", *, vision: str = "", decoder: str = "", mask: str = "image_bidirectional", projector: str = "mlp",
    image_size: int | None = None, vocab_size: int | None = None, seed: int = 0, dtype: str = "float32",
    templates: str = "plain", mesh: jax.sharding.Mesh | None = None,
) -> Model:  # fmt: skip
    """The Model of a whole PaliGemma, LLaVA, SmolVLM or Gemma 3 checkpoint, or of two backbones with a fresh projector between.

    whole              directory or hub id of a whole model; its mask kind comes with it
    vision, decoder    directories or hub ids of a tower and a decoder: any listed pair (docs/backbones.md)
    mask, projector, image_size, vocab_size, seed
                       of a pair: mask kind, "mlp" or "linear", pixels a side, embedding rows, of the projector's values
    dtype, templates, mesh   compute and storage dtype, prompt templates, device mesh (default: all devices along data)

    VlaxError for a checkpoint that is broken or of an unlisted family, before any long work.
    """
    if bool(whole) == bool(vision and decoder):
        raise VlaxError("from_pretrained takes either one whole checkpoint or vision=DIR and decoder=DIR")
    if dtype not in DTYPES:
        raise VlaxError(f"dtype={dtype!r} is not one of {', '.join(DTYPES)}")
    mesh = sharding.make_mesh((-1, 1, 1)) if mesh is None else mesh
    config = loader.vlm_config(whole) if whole else _pair(vision, decoder, mask, projector, image_size, vocab_size)
    tokenizer = load_tokenizer(whole or decoder, config.decoder.vocab_size)
    check_vocabulary(config.decoder, tokenizer)
    graphdef, abstract = abstract_model(config, DTYPES[dtype])
    shardings = sharding.parameter_shardings(abstract, mesh)
    options: dict[str, Any] = {"dtype": DTYPES[dtype], "place": lambda path, value: jax.device_put(value, shardings[path])}
    if whole:
        _, params, report = loader.load_vlm(whole, **options)
        reports = [report]
    else:
        _, seeing, first = loader.load_vision(vision, image_size=config.tower.vision.image_size, **options)
        _, speaking, second = loader.load_decoder(decoder, vocab_size=config.decoder.vocab_size, **options)
        between = fresh_part("projector", config, seed)
        between = {path: jax.device_put(jnp.asarray(v, DTYPES[dtype]), shardings[path]) for path, v in between.items()}
        params, reports = {**seeing, **between, **speaking}, [first, second]
    groups.check_same_structure(params, abstract, whole or f"{vision} with {decoder}")
    around = pictures(whole, tokenizer.backend_tokenizer) if whole else None
    encoder = make(tokenizer, templates, interleaved=around is not None, picture=around)
    manifest = {"pretrained": [report.summary() for report in reports], "template_name": encoder.templates}
    return Model(config, params, encoder, graphdef, mesh, {**manifest, "text": encoder.settings.to_dict()})


def _pair(vision: str, decoder: str, mask: str, projector: str, image_size: int | None, vocab_size: int | None) -> VLMConfig:
    tower, language = loader.vision_config(vision, image_size=image_size), loader.decoder_config(decoder, vocab_size=vocab_size)
    between = ProjectorConfig(projector, tower.width, language.width)
    return VLMConfig(language, tower, between, mask, loader.preprocess(vision, image_size=image_size))
