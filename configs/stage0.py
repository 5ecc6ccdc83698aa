"""Stage 0, embedded variant only: what pretrained backbones are elsewhere.

`vision`: a tower that has learned to see, as part of a captioner whose decoder is thrown away. `decoder`: a language model that
has learned the captions' language from text alone. Stage 1 therefore meets a frozen decoder that never saw an image.

    --config=configs/stage0.py:vision      --config=configs/stage0.py:decoder
"""

from configs import base, datasets


def vision():
    s = base.stage("stage0_vision")
    s.captioner = True
    s.backbone = "vision"
    s.trainable = {"all": "."}
    s.learning_rate = {"all": 2e-3}
    s.mixture = {"ai": datasets.weighted(datasets.scenes("train", "ai"), 1.0)}
    s.validation = {"ai": datasets.scenes("val", "ai")}
    s.steps, s.text_length = 500, 32
    return s


def decoder():
    s = base.stage("stage0_decoder")
    s.init = {"decoder": "fresh"}
    s.backbone = "decoder"
    s.trainable = {"all": "."}
    s.learning_rate = {"all": 3e-3}
    s.mixture = {"text": datasets.weighted(datasets.scenes("train", "text"), 1.0)}
    s.validation = {"text": datasets.scenes("val", "text")}
    s.steps, s.batch_size, s.text_length = 250, 32, 128
    return s


def stages(variant: str):
    return {} if variant == "0.9b" else {"stage0_vision": vision(), "stage0_decoder": decoder()}


def get_config(which: str = "vision"):
    if which not in ("vision", "decoder"):
        raise ValueError(f"unknown variant {which!r}; stage 0 has vision and decoder")
    return base.of_shapes(base.config("embedded", vision() if which == "vision" else decoder(), {}))
