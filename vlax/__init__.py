"""vlax: small vision-language models, aligned in four stages, in JAX.

import vlax
model = vlax.load("runs/embedded/stage3/export")        # or a directory in LLaVA or PaliGemma layout, or a hub id
model.caption(["photo.jpg"])
model.answer(["photo.jpg"], ["what colour is the circle?"])
"""

import importlib
from typing import Any

from vlax.errors import VlaxError

__version__ = "0.1.0"
__all__ = ["Model", "VlaxError", "__version__", "evaluation", "from_pretrained", "load"]

_HOMES = {
    "Model": "vlax.model.api",
    "load": "vlax.model.opening",
    "from_pretrained": "vlax.model.from_pretrained",
    "evaluation": "vlax.evaluation",
}


def __getattr__(name: str) -> Any:
    """The public names, imported when they are first used: a typo on the command line should not wait for jax."""
    if name not in _HOMES:
        raise AttributeError(f"module 'vlax' has no attribute {name!r}; it has {', '.join(__all__)}")
    module = importlib.import_module(_HOMES[name])
    return module if name == "evaluation" else getattr(module, name)


def __dir__() -> list[str]:
    return sorted(__all__)
