"""Stage 2, extended alignment: the projector learns on, on dense AI captions and a slice of human ones. The decoder stays frozen.

The paper's third finding: more work belongs in the alignment stage.
"""

from configs import base, scores, stage1


def stage(variant: str):
    s = base.stage("stage2")
    s.init = {"vision": "stage1", "projector": "stage1", "decoder": "stage1"}
    s.trainable = {"projector": "^projector/"}
    s.learning_rate = {"projector": 2e-4}
    s.epoch_of = "ai"
    if variant == "0.9b":
        s.mixture = {
            "ai": {"kind": "llava", "annotations": "sharegpt4v/share-captioner_coco_lcs_sam_1246k_1107.json",
                   "images": "sharegpt4v/images", "weight": 1.0},
            "human": {"kind": "coco", "annotations": "coco/annotations/captions_train2014.json", "images": "coco/train2014",
                      "weight": 0.2},
        }  # fmt: skip
        s.batch_size, s.accumulate, s.text_length = 256, 4, 256
        s.overlong, s.eval_every = "cut", 500
    else:
        s.learning_rate = {"projector": 2e-3}
        s.mixture = {
            "ai": {"kind": "scenes", "split": "train", "style": "ai", "weight": 1.0},
            "human": {"kind": "scenes", "split": "train", "style": "human", "weight": 1.0},
        }
        s.steps, s.eval_every, s.text_length = 400, 200, 40
    return scores.captions(s, variant)


def parents(variant: str):
    return {**stage1.parents(variant), "stage1": stage1.stage(variant)}


def get_config(variant: str = "embedded"):
    base.check_variant(variant)
    return base.config(variant, stage(variant), parents(variant))
