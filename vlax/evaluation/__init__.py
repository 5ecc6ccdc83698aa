"""Scores: captions by pycocoevalcap, VQA by the official rule, with intervals, blind twin and prior."""

from vlax.scores.captions import score_captions
from vlax.scores.vqa import score_vqa

__all__ = ["score_captions", "score_vqa"]
