"""The public `Model`: from an export, from backbones, from a whole checkpoint. Imports decoding and pretrained."""
