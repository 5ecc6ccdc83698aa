"""Experiments of the findings: what each asks, its arms and outcomes, whatever data and models `configs/findings.py` gives it.

An arm is a name and the fields that it changes of the base chain: ("STAGE.FIELD", value) or ("run.FIELD", value), each set as
a whole.
"""

MASKS = ("image_bidirectional", "causal", "prefix_lm", "image_sees_prompt")
PARTS = ("vision", "projector", "decoder")
BACKBONES = {"vision": "stage0_vision", "projector": "fresh", "decoder": "stage0_decoder"}  # what a chain begins with


def settings(**experiments: dict) -> dict:
    """What all experiments share. They are plain dicts in a tuple, since a ConfigDict would sort them and their arms."""
    return {
        "seeds": (1, 2, 3, 4, 5),
        "sweep_seed": 0,  # of the sweep over learning rates alone
        "factors": (0.5, 1.0, 2.0),  # that a sweep multiplies learning rates by
        # For --plan, seconds that two idle cores are taken to need: a position of the sequence in training (an update has rows
        # x (text + image tokens)), what a stage takes beside its updates, scoring one suite with its twin.
        "seconds": {"position": 4e-5, "stage": 4.0, "score": 5.0},
        "experiments": tuple({"name": name, **each} for name, each in experiments.items()),
    }


def experiment(question: str, claim: str, rates: tuple, **more) -> dict:
    """The fields of an experiment with their defaults.

    rates     (stage, held-out source) whose loss chooses among the factors; swept: stages whose rates they multiply
    sweep     arms that the sweep trains, whose losses are averaged
    arms      {name: changes}
    outcomes  {name: {of, stage, ...}}: see vlax/findings/experiment.py
    compare   ((outcome, arm that the claim holds for better, other arm), ...); the first `deciding` ones decide
    line      {outcome, over: what x is, x: {arm: number}}: what a doubling of x gives; {}: none
    extra     whether it runs only when it is asked for by name
    """
    return {"question": question, "claim": claim, "rates": rates, "swept": (), "sweep": (), "arms": {}, "outcomes": {},
            "compare": (), "deciding": 1, "line": {}, "extra": False, **more}  # fmt: skip


def init(parent: str) -> dict:
    return dict.fromkeys(PARTS, parent)


def suite(stage: str, name: str, metric: str, **more) -> dict:
    return {"of": "suite", "stage": stage, "suite": name, "metric": metric, **more}


def masks(outcomes: dict, stages: tuple, rates: tuple, deciding: int, changes: tuple = ()) -> dict:
    """The four mask kinds in `stages`; each outcome compared with `causal`, those of the paper's mask first. changes: of every
    arm."""
    names = [name for name, each in outcomes.items() if not each.get("mask")]
    compare = [(name, "image_bidirectional", "causal") for name in names]
    compare += [(name, other, "causal") for other in MASKS[2:] for name in names]
    return experiment(
        "Is it better not to mask image tokens causally?",
        "a model whose image tokens see each other scores higher than a causal one",
        rates, swept=stages, sweep=MASKS[:2], deciding=deciding, outcomes=outcomes, compare=tuple(compare),
        arms={mask: (*changes, *((f"{stage}.mask", mask) for stage in stages)) for mask in MASKS},
    )  # fmt: skip


def alignment(budget: int, rates: tuple, first: dict, learning: dict, text: bool) -> dict:
    """Shares of the updates that stages 1 and 2 have, the rest being stage 3's. first: what a chain begins with; learning: the
    rates of stages 1 and 2 where the decoder learns in them."""

    def share(part: float) -> tuple:
        each = round(budget * part / 2)
        steps = (("stage1.steps", each), ("stage2.steps", each), ("stage3.steps", budget - 2 * each))
        return steps if each else (("stage3.steps", budget), ("stage3.init", first))

    both = (("trainable", {"projector": "^projector/", "decoder": "^decoder/"}), ("learning_rate", learning))
    unfrozen = tuple((f"{name}.{field}", value) for name in ("stage1", "stage2") for field, value in both)
    arms = {f"{round(100 * part)} %": share(part) for part in (0.0, 0.1, 0.25, 0.5)}
    arms["25 % unfrozen"] = share(0.25) + unfrozen
    outcomes = {"CIDEr": suite("stage3", "captions", "CIDEr")}
    outcomes |= {"perplexity on text": {"of": "perplexity", "stage": "text", "source": "text"}} if text else {}
    compare = [("CIDEr", "25 %", "0 %"), ("CIDEr", "10 %", "0 %"), ("CIDEr", "50 %", "0 %"), ("CIDEr", "25 %", "25 % unfrozen")]
    compare += [("perplexity on text", "25 %", name) for name in ("0 %", "25 % unfrozen")] if text else []
    return experiment(
        "Does more of the budget belong in alignment, with the decoder frozen?",
        "a quarter of the updates on the projector alone gives better captions than none, at as many updates in all",
        rates, swept=("stage1", "stage2", "stage3"), sweep=("0 %", "25 %"), arms=arms, outcomes=outcomes,
        compare=tuple(compare),
    )  # fmt: skip


def each_stage(steps: dict, rates: tuple, first: dict, third: dict) -> dict:
    """One stage left out, its updates given to the next; stage 4 is replaced by as much of stage 3. first: what a chain begins
    with; third: stage 3."""
    instead = tuple((f"stage4.{field}", third[field]) for field in ("mixture", "epoch_of", "text_length", "learning_rate"))
    arms = {
        "all four": (),
        "without 1": (("stage2.init", first), ("stage2.steps", steps["stage1"] + steps["stage2"])),
        "without 2": (("stage3.init", init("stage1")), ("stage3.steps", steps["stage2"] + steps["stage3"])),
        "without 3": (("stage4.init", init("stage2")), ("stage4.steps", steps["stage3"] + steps["stage4"])),
        "without 4": instead,
    }
    outcomes = {"accuracy": suite("stage4", "questions", "accuracy"), "CIDEr": suite("stage4", "captions", "CIDEr")}
    without = [name for name in arms if name != "all four"]
    return experiment(
        "Does each of the four stages count?",
        "the whole chain answers questions better than the chain with any one stage left out, at as many updates",
        rates, swept=("stage1", "stage2", "stage3", "stage4"), sweep=("all four",), arms=arms, outcomes=outcomes,
        compare=tuple((outcome, "all four", name) for outcome in outcomes for name in without), deciding=len(without),
    )  # fmt: skip


def data(ai: dict, human: dict, tokens: int, last: str, rates: tuple) -> dict:
    """One kind of captions against the other at equal tokens, then a little human data for both."""
    arms = {
        "AI-like": (("joint.mixture", {"ai": {**ai, "tokens": tokens}}),),
        "human-like": (("joint.mixture", {"human": {**human, "tokens": tokens}}),),
    }
    outcomes = {"CIDEr, human references": suite(last, "captions", "CIDEr")}
    outcomes |= {f"reach, {name}": {"of": "reach", "stage": "joint", "source": name} for name in ("ai", "human")}
    outcomes |= {f"loss, {name}": {"of": "loss", "stage": "joint", "source": name} for name in ("ai", "human")}
    return experiment(
        "Does a decoder converge faster on AI-made captions?",
        "at equal tokens, training on AI-made captions leads to better captions by human references, after the same few "
        "human captions for both",
        rates, swept=("joint", last), sweep=("AI-like", "human-like"), arms=arms, outcomes=outcomes,
        compare=tuple((name, "AI-like", "human-like") for name in outcomes),
    )  # fmt: skip


def transfer(stage: str, name: str, starts: dict, sizes: dict, rates: tuple) -> dict:
    """Another domain from each start. starts: {name: init}; sizes: {number of examples: changes}."""
    arms = {f"{start}, {count}": ((f"{stage}.init", init), *changes) for start, init in starts.items()
            for count, changes in sizes.items()}  # fmt: skip
    firsts = [start for start in starts if start != "scratch"]
    order = [firsts[-1], *firsts[:-1]]
    return experiment(
        "Does the model adapt easily to another domain?",
        f"starting from {order[0]} beats starting from scratch, with few examples and with many",
        rates, swept=(stage,), sweep=tuple(f"{start}, {max(sizes)}" for start in ("scratch", order[0])), arms=arms,
        outcomes={"accuracy": suite(stage, name, "accuracy")},
        compare=tuple(("accuracy", f"{start}, {count}", f"scratch, {count}") for start in order for count in sizes),
        deciding=len(sizes),
    )  # fmt: skip
