"""vlax: small vision-language models, aligned in four stages, in JAX.

import vlax
model = vlax.load("runs/embedded/stage3/export")        # or a LLaVA, PaliGemma, SmolVLM or Gemma 3 directory, or a hub id
model.caption(["photo.jpg"])
model.answer(["photo.jpg"], ["what colour is the circle?"])
print(model)                                            # what it is

config = vlax.config("stage3", steps=200)               # as --config=configs/stage3.py --config.stage.steps=200
model = vlax.train(config, "runs/mine")                 # what `vlax train` does
model = vlax.finetune(model, "captions.json")           # on one's own data
vlax.evaluate(model, "coco_karpathy_test", data_root="data")
vlax.inspect(config, "runs/mine")                       # the first batches, as the model will see them
vlax.attention(model, "photo.jpg", "what is it?")       # where it looks while it answers

help(vlax.train), help(vlax.Model) and so on say more.
"""

import importlib
from typing import Any

from vlax.errors import VlaxError

__version__ = "0.1.0"
__all__ = [
    "Model", "Progress", "Scores", "VlaxError", "__version__", "attention", "config", "evaluate", "evaluation", "finetune",
    "from_pretrained", "inspect", "load", "push_to_hub", "train",
]  # fmt: skip

# name: (module, what it is called there)
_HOMES = {
    "Model": ("vlax.model.api", "Model"),
    "load": ("vlax.model.opening", "load"),
    "from_pretrained": ("vlax.model.from_pretrained", "from_pretrained"),
    "evaluation": ("vlax.evaluation", ""),
    "config": ("vlax.interface", "config_of"),
    "train": ("vlax.interface", "train"),
    "finetune": ("vlax.interface", "finetune"),
    "evaluate": ("vlax.interface", "evaluate"),
    "inspect": ("vlax.interface", "inspect"),
    "attention": ("vlax.interface", "attention"),
    "push_to_hub": ("vlax.interface", "push_to_hub"),
    "Scores": ("vlax.interface", "Scores"),
    "Progress": ("vlax.training.listeners", "Progress"),
}


def __getattr__(name: str) -> Any:
    """The public names, imported when they are first used: a typo on the command line should not wait for jax."""
    if name not in _HOMES:
        raise AttributeError(f"module 'vlax' has no attribute {name!r}; it has {', '.join(__all__)}")
    home, attribute = _HOMES[name]
    module = importlib.import_module(home)
    return getattr(module, attribute) if attribute else module


def __dir__() -> list[str]:
    return sorted(__all__)
