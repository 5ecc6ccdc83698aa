"""The other side of `benchmarks.training`: transformers' LLaVA, trained in PyTorch as people write it."""

import argparse
import json
from typing import Any

import numpy as np
import torch
import transformers

from benchmarks.timing import BATCHES, Taken, largest, timed

GROUPS = {"projector": "multi_modal_projector", "decoder": ("language_model", "lm_head")}
IGNORED = -100  # what transformers leaves out of a loss


def batch_of(path: Any, about: dict[str, Any], image_token: int, device: str) -> dict[str, torch.Tensor]:
    """What the stock class is called with: [image tokens | text], labels on the answers."""
    read = np.load(path)
    rows, seen = len(read["tokens"]), about["image_tokens"]
    front = np.full((rows, seen), image_token)
    labels = np.where(read["segment"] == about["answer"], read["tokens"], IGNORED)
    pixels = (read["image"][:, 0].transpose(0, 3, 1, 2) / 255 - about["mean"]) / about["std"]
    arrays = {
        "input_ids": np.concatenate([front, read["tokens"]], axis=1).astype(np.int64),
        "attention_mask": np.concatenate([np.ones_like(front), read["example"] > 0], axis=1).astype(np.int64),
        "labels": np.concatenate([np.full_like(front, IGNORED), labels], axis=1).astype(np.int64),
        "pixel_values": pixels.astype(np.float32),
    }
    return {name: torch.from_numpy(value).to(device) for name, value in arrays.items()}


def opened(flags: argparse.Namespace, about: dict[str, Any]) -> tuple[Any, dict[str, list[Any]]]:
    """(the stock class, its parameters that learn by group): these in float32, the others in the compute dtype."""
    transformers.logging.set_verbosity_error()
    model = transformers.LlavaForConditionalGeneration.from_pretrained(flags.folder / "hf", dtype=torch.float32).train()
    learns: dict[str, list[Any]] = {name: [] for name in about["rates"]}
    for name, value in model.named_parameters():
        group = next((group for group in learns if any(part in name for part in np.atleast_1d(GROUPS[group]))), None)
        value.requires_grad_(group is not None)
        if group is not None:
            learns[group].append(value)
        elif flags.dtype == "bfloat16":
            value.data = value.data.to(torch.bfloat16)
    return model, learns


def sliced(model: Any, batch: dict[str, torch.Tensor], text: int) -> torch.Tensor:
    """The same loss, by logits of the text positions alone."""
    given = {name: value for name, value in batch.items() if name != "labels"}
    logits = model(**given, logits_to_keep=text).logits[:, :-1].float()
    labels = batch["labels"][:, -text + 1 :]
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)


def arm(flags: argparse.Namespace) -> Taken:
    """In this process: `timed` steps of one arm."""
    if flags.threads:
        torch.set_num_threads(flags.threads)
    about = json.loads((flags.folder / "about.json").read_text())
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, learns = opened(flags, about)
    model.to(device)
    groups = [{"params": values, "lr": about["rates"][name]} for name, values in learns.items()]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, about["beta2"]), weight_decay=0.0, fused=True)
    everything = [value for values in learns.values() for value in values]
    token = model.config.image_token_id
    batches = [batch_of(flags.folder / f"batch{number}.npz", about, token, device) for number in range(BATCHES)]
    called = model if flags.one == "eager" else torch.compile(model)

    def norms() -> dict[str, float]:
        return {name: float(torch.stack([value.grad.norm() for value in values]).norm()) for name, values in learns.items()}

    def step(number: int, first: bool = False) -> dict[str, float]:
        batch = batches[number % BATCHES]
        with torch.autocast(device, torch.bfloat16, enabled=flags.dtype == "bfloat16"):
            loss = sliced(called, batch, about["text"]) if flags.one == "tuned" else called(**batch).loss
        loss.backward()
        found = norms() if first else {}
        torch.nn.utils.clip_grad_norm_(everything, about["clip"])
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return {"loss": float(loss.item()), **found}

    begun, cpu, wall = timed(step, lambda number: step(number, first=True), flags.steps)
    return Taken(begun.pop("loss"), begun, cpu, wall, largest())
