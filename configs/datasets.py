"""The public data sets of the full-size chain, as they lie under run.data_root (docs/data.md says which files go where)."""

LLAVA_PRETRAIN = {
    "kind": "llava", "task": "caption",
    "annotations": "llava_pretrain/blip_laion_cc_sbu_558k.json", "images": "llava_pretrain/images",
}  # fmt: skip
SHAREGPT4V = {
    "kind": "llava", "task": "describe",
    "annotations": "sharegpt4v/share-captioner_coco_lcs_sam_1246k_1107.json", "images": "sharegpt4v/images",
}  # fmt: skip
LLAVA_INSTRUCT = {"kind": "llava", "annotations": "llava_instruct/llava_instruct_150k.json", "images": "coco/train2017"}
COCO_TRAIN = {"kind": "coco", "annotations": "coco/annotations/captions_train2014.json", "images": "coco/train2014"}
VQAV2_TRAIN = {
    "kind": "vqa", "questions": "vqav2/v2_OpenEnded_mscoco_train2014_questions.json",
    "annotations": "vqav2/v2_mscoco_train2014_annotations.json", "images": "coco/train2014",
}  # fmt: skip


def scenes(split: str, style: str) -> dict:
    """The embedded scenes (vlax/data/embedded/scenes.py)."""
    return {"kind": "scenes", "split": split, "style": style}


def weighted(source: dict, weight: float) -> dict:
    return {**source, "weight": weight}
