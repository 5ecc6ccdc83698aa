"""A Model on one screen."""

from typing import Any

from vlax.params import groups


def text(model: Any) -> str:
    """`print(model)` of a vlax.Model: its parts with shapes and parameters, mask, templates, precision, devices, how to ask."""
    c, d, total = model.config, model.config.decoder, groups.count(model.params)
    rows = [("decoder", f"{d.layers} layers of width {d.width}; {d.vocab_size:,} tokens")]
    if c.vision is not None:
        v = c.tower.vision
        tiles = f", up to {c.tiles} tiles beside the whole" if c.tiles else ""
        seen = f"{v.layers} layers of width {v.width}; {v.image_size} pixels in patches of {v.patch_size}{tiles}"
        rows = [("vision", seen), ("projector", f"{c.tower.projector.kind}; {c.tokens_per_image} tokens a picture"), *rows]
    sizes = {part: groups.count({k: v for k, v in model.params.items() if k.split("/")[0] == part}) for part, _ in rows}
    dtype, devices = next(iter(model.params.values())).dtype, model.mesh.devices.size
    held = f", matrices in {model.held}" if model.held else ""
    ways = "caption(picture), answer(picture, question)" if c.vision is not None else "generate(None, prompt)"
    size = groups.human_bytes(groups.size_bytes(model.params))
    return "\n".join([
        f"vlax.Model of {model.where or 'no directory'}: {total:,} parameters, {size}",
        *(f"  {part:<10} {sizes[part]:>13,}  {shape}" for part, shape in rows),
        f"  mask {c.mask}, templates {model.encoder.templates}, {dtype}{held}, {devices} device{'s' * (devices > 1)}",
        f"  {ways}, chat(messages), generate(pictures, prompts), logits(...)",
    ])  # fmt: skip
