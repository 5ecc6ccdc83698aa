"""A small captioner from scratch on Flickr8k-sized data: 2,000 photographs, five captions each, minutes on two CPU cores.

    python train.py --config=configs/flickr8k.py --config.run.data_root=DIR --workdir=runs/flickr8k

DIR holds flickr8k_dev/{annotations/captions_{train,val,test}.json, images/}. So few captions are soon known by heart: the best
state on validation counts.
"""

from configs import base, datasets, scores


def _set(split: str) -> dict:
    return {"kind": "coco", "annotations": f"flickr8k_dev/annotations/captions_{split}.json", "images": "flickr8k_dev/images"}


def get_config():
    s = base.stage("flickr8k")
    s.trainable = {"all": "."}
    s.learning_rate = {"all": 1e-3}
    s.weight_decay = 0.1
    s.mixture = {"captions": datasets.weighted(_set("train"), 1.0)}
    suite = scores.own("caption", *(_set(split) for split in ("train", "val", "test")), num_beams=4, max_new_tokens=24)
    scores.on(s, "captions", suite)
    s.steps, s.eval_every, s.eval_batches, s.select = 1200, 150, 40, "best"
    s.text_length = 32
    config = base.config("embedded", s, {})
    config.run.bpe_text = {"captions": _set("train")}
    config.run.bpe_vocab = 1500
    config.run.shapes.vision = {"image_size": 48, "patch_size": 8, "width": 128, "layers": 3, "heads": 4, "mlp_dim": 384}
    config.run.shapes.decoder.update({"width": 128, "layers": 3, "heads": 4, "kv_heads": 4, "head_dim": 32, "mlp_dim": 384})
    return config
