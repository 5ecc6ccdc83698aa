"""What the entry point "vlax" of `lmms_eval.models` names: light, since lmms-eval reads it whatever model is asked for."""

from typing import Any


def manifest() -> Any:
    """lmms_eval.models.registry_v2.ModelManifest: where lmms-eval finds the model "vlax"."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(model_id="vlax", simple_class_path="vlax.evaluation.lmms.Vlax")
