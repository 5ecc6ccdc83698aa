"""Experiments beyond the paper, whose future work names data size and architecture; they run when they are asked for by name.

Each has one fitted line: what a doubling gives, by least squares over log2 of its x, one line a seed.
"""

from configs import experiments as of

CAPTIONS = ("stage3", "captions")
OUTCOMES = {
    "CIDEr": of.suite("stage3", "captions", "CIDEr"),
    "loss": {"of": "loss", "stage": "stage3", "source": "captions"},
}
SHORT = (("stage3.init", of.init("stage1")),)  # from the first alignment straight to stage 3
HUMAN = (*SHORT, ("stage3.epoch_of", "human"))


def embedded(human: dict, learning: dict) -> dict[str, dict]:
    """{name: experiment}. human: the source of human-like captions; learning: rates of projector and decoder."""
    return {"amount": amount(human), "width": width(), "projector": projector(), "adapters": adapters(learning)}


def _beyond(question: str, claim: str, arms: dict, best: str, others: tuple, x: str = "", places: tuple = ()) -> dict:
    """x: what the line is over; places: of the arms in their order."""
    line = {"outcome": "CIDEr", "over": x, "x": dict(zip(arms, places, strict=True))} if x else {}
    return of.experiment(
        question, claim, CAPTIONS, swept=("stage3",), sweep=(best, others[0]), arms=arms, outcomes=OUTCOMES, line=line,
        extra=True,
        compare=tuple((outcome, best, other) for outcome in OUTCOMES for other in others),
    )  # fmt: skip


def amount(human: dict) -> dict:
    """1/8 to 8/8 of 800 scenes with five captions each."""
    arms = {f"{part}/8": (*HUMAN, ("stage3.mixture", {"human": {**human, "size": 100 * part, "weight": 1.0}}))
            for part in (1, 2, 4, 8)}  # fmt: skip
    return _beyond("What do more captions give?", "four times as many captions give better ones, at as many updates", arms,
                   "8/8", ("2/8", "1/8", "4/8"), "scenes", (100, 200, 400, 800))  # fmt: skip


def width() -> dict:
    """Of decoder and tower together, four heads each."""

    def shapes(wide: int) -> tuple:
        both = {"width": wide, "mlp_dim": 3 * wide}
        decoder = [(name, value) for name, value in {**both, "head_dim": wide // 4}.items()]
        return (*SHORT, *((f"run.shapes.decoder.{name}", value) for name, value in decoder),
                *((f"run.shapes.captioner.{name}", value) for name, value in decoder),
                *((f"run.shapes.vision.{name}", value) for name, value in both.items()))  # fmt: skip

    widths = (32, 48, 64, 96)
    return _beyond("What do wider models give?", "a model twice as wide writes better captions, at as many updates",
                   {str(each): shapes(each) for each in widths}, "64", ("32", "48"), "width", widths)  # fmt: skip


def projector() -> dict:
    """Linear against two layers, and a quarter of the image tokens."""
    arms = {
        "two layers": SHORT,
        "linear": (*SHORT, ("run.shapes.projector.kind", "linear")),
        "pixel shuffle 2": (*SHORT, ("run.shapes.projector.pixel_shuffle", 2)),
    }
    return _beyond("Does the projector's kind matter?", "a projector of two layers is better than a linear one", arms,
                   "two layers", ("linear", "pixel shuffle 2"))  # fmt: skip


def adapters(learning: dict) -> dict:
    """The whole decoder against low-rank adapters on it."""

    def low(rank: int) -> tuple:
        rates = {"projector": learning["projector"], "lora": learning["decoder"]}
        return (*SHORT, ("stage3.lora", {"rank": rank, "alpha": 16.0, "targets": ("q", "v")}), ("stage3.learning_rate", rates),
                ("stage3.trainable", {"projector": "^projector/", "lora": "/lora_[ab]$"}))  # fmt: skip

    ranks = (2, 4, 8, 16)
    arms = {"whole": SHORT, **{f"rank {rank}": low(rank) for rank in ranks}}
    made = _beyond("Do adapters do as well as the whole decoder?", "training the whole decoder beats adapters of rank 16", arms,
                   "whole", ("rank 16", "rank 4"))  # fmt: skip
    return {**made, "line": {"outcome": "CIDEr", "over": "rank", "x": {f"rank {rank}": rank for rank in ranks}}}
