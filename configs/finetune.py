"""One stage on one's own data, from any whole model: a vlax export, a hub id, a LLaVA, PaliGemma, SmolVLM or Gemma 3 directory.

    python train.py --config=configs/finetune.py --config.run.model=DIR --config.stage.data=captions.json --workdir=runs/mine

What is 0 or empty here is guessed from model, data and machine (vlax/training/guess.py), and printed with the flag that changes
it. A part of the pictures is held out: the best state on half of them is exported, eval.py scores it on the others.
"""

from ml_collections import ConfigDict

from configs import base


def get_config():
    s = base.stage("finetune")
    s.init = ConfigDict({"vision": "model", "projector": "model", "decoder": "model"})
    s.trainable = ConfigDict({"projector": "^projector/", "decoder": ""})
    s.learning_rate = ConfigDict({"projector": 0.0, "decoder": 0.0})
    s.text_length, s.batch_size, s.epochs, s.eval_every = 0, 0, 0.0, 0
    s.overlong, s.select = "cut", "best"
    config = base.config("embedded", s, {})
    config.run.dtype = config.run.remat = ""
    return config
