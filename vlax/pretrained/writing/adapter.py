"""Low-rank adapters in PEFT's layout, for those who run the decoder elsewhere."""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from vlax.errors import VlaxError
from vlax.models.decoder import DecoderConfig
from vlax.pretrained.writing import writer
from vlax.storage import state

# The names of most families with rotary positions, the only ones in whose stock classes PEFT finds these modules one by one:
# GPT-2 and Phi-3 fuse q, k and v.
NAMES = {
    "q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj", "o": "self_attn.o_proj",
    "gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj",
}  # fmt: skip


def write(directory, config: DecoderConfig, adapters: Mapping[str, np.ndarray]) -> bool:
    """Writes adapter_config.json and adapter_model.safetensors; returns whether the decoder's family can take them.

    adapters: {"decoder/layers/0/attention/q/lora_a": [inputs, rank], ".../lora_b": [rank, outputs], ...}. PEFT keeps the
    transposes. VlaxError for a path that is no adapter.
    """
    lora, out = config.lora, Path(str(directory))
    if lora is None or not _one_by_one(dataclasses.replace(config, lora=None), lora.targets):
        return False
    tensors = {}
    for path, value in adapters.items():
        parts = path.split("/")
        if len(parts) != 6 or parts[4] not in NAMES or parts[5] not in ("lora_a", "lora_b"):
            raise VlaxError(f"{path} is not an adapter of a decoder matrix")
        letter = parts[5][-1].upper()
        name = f"base_model.model.model.layers.{parts[2]}.{NAMES[parts[4]]}.lora_{letter}.weight"
        tensors[name] = np.ascontiguousarray(np.asarray(value, np.float32).T)
    out.mkdir(parents=True, exist_ok=True)
    settings = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": lora.rank, "lora_alpha": lora.alpha, "lora_dropout": 0.0,
        "bias": "none", "fan_in_fan_out": False, "inference_mode": True,
        "target_modules": [NAMES[target].split(".")[1] for target in lora.targets if target != "gate" or config.gated_mlp],
    }  # fmt: skip
    state.write_json(out / "adapter_config.json", settings, indent=1)
    save_file(tensors, str(out / "adapter_model.safetensors"), metadata={"format": "pt"})
    return True


def _one_by_one(config: DecoderConfig, targets: Iterable[str]) -> bool:
    """Whether the family that the decoder is written as has a matrix of its own for each target."""
    try:
        family, _ = writer.decoder_family(config)
    except VlaxError:  # no stock class to lay it over
        return False
    there = {name for rule in family.rules(config) for name in rule.tensors}
    return all(f"layers.0.{NAMES[x]}.weight" in there for x in targets if x != "gate" or config.gated_mlp)
