"""Question answering from scratch on easy-VQA: 1,000 pictures of one coloured shape, 9,656 questions, minutes on two CPU cores.

    python train.py --config=configs/easy_vqa.py --config.run.data_root=DIR --workdir=runs/easy_vqa

DIR holds easy_vqa/{annotations/{questions,annotations}_{train,val,test}.json, images/}.
"""

from configs import base, datasets, scores


def _set(split: str) -> dict:
    return {
        "kind": "vqa",
        "questions": f"easy_vqa/annotations/questions_{split}.json",
        "annotations": f"easy_vqa/annotations/annotations_{split}.json",
        "images": "easy_vqa/images",
    }


def get_config():
    s = base.stage("easy_vqa")
    s.trainable = {"all": "."}
    s.learning_rate = {"all": 1e-3}
    s.weight_decay = 0.1
    s.augment = ("flip", "shift")  # 800 pictures are soon known by heart
    s.mixture = {"questions": datasets.weighted(_set("train"), 1.0)}
    scores.on(s, "questions", scores.own("question", *(_set(split) for split in ("train", "val", "test")), max_new_tokens=8))
    s.steps, s.eval_every, s.eval_batches, s.select = 1600, 200, 20, "best"
    s.text_length = 24
    config = base.config("embedded", s, {})
    config.run.bpe_text = {"questions": _set("train")}
    config.run.bpe_vocab = 350
    config.run.shapes.vision = {"image_size": 48, "patch_size": 8, "width": 96, "layers": 3, "heads": 4, "mlp_dim": 256}
    return config
