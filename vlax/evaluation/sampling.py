"""The small generative evaluation while training: a few held-out rows, decoded and scored at every validation."""

from collections.abc import Callable

from vlax import groups, session
from vlax.api import Model
from vlax.decoding import DecodeConfig
from vlax.evaluation import runner, scoring


def sampler(s: session.Session) -> Callable | None:
    """`sample(state, frozen) -> {"NAME CIDEr": ..., "NAME accuracy": ...}` over stage.generate; None if it names no source."""
    stage, run = s.plan.stage, s.plan.run
    if not stage.generate or not stage.generate_samples:
        return None
    sets = runner.open_sets(stage.generate, run.data_root, stage.generate_samples)
    model = Model(s.config, {}, s.encoder, s.graphdef, s.mesh, {})
    decode = DecodeConfig(max_new_tokens=stage.max_new_tokens)
    predictor = model.predictor(decode, runner.BATCH)
    asked = [(test, runner.requests(model, test.rows)) for test in sets]  # pictures are decoded once

    def sample(state, frozen) -> dict[str, float]:
        params = groups.join(state["params"], frozen)
        out = {}
        for test, requests in asked:
            texts = [text for batch in predictor.texts(params, requests) for text in batch]
            lines = [runner.prediction(test, row, text) for row, text in zip(test.rows, texts, strict=True)]
            scores, _ = scoring.by_row(lines, ("CIDEr",))
            out.update({f"{test.name} {k}": v for k, v in scores.items() if k in ("CIDEr", "accuracy")})
        return out

    return sample
