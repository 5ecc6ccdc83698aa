"""The paper's findings as experiments: arms over one base chain, seeds, what is measured and what decides (docs/findings.md).

python -m vlax findings --config=findings                    embedded data, small models; the first five on two CPU cores
python -m vlax findings mask --config=findings:flickr8k --config.run.data_root=DIR
python -m vlax findings alignment --config=findings:0.9b --config.run.data_root=DIR
"""

from ml_collections import ConfigDict

from configs import base, beyond, datasets, flickr8k, pathvqa, scores, stage4
from configs import experiments as of


def get_config(variant: str = "embedded"):
    makers = {"embedded": _embedded, "flickr8k": _flickr8k, "0.9b": _full}
    if variant not in makers:
        raise ValueError(f"unknown variant {variant!r}; the variants are {', '.join(makers)}")
    return makers[variant]()


def _quick(config: ConfigDict, log_every: int) -> ConfigDict:
    """What nobody looks at in an experiment is left out."""
    config.run.tensorboard, config.run.log_every = False, log_every
    config.run.keep = {"last": 1, "best": 0, "hours": 0.0}
    for stage in (config.stage, *config.parents.values()):
        stage.generate_samples, stage.reference, stage.eval_every = 0, "", 0
    return config


PATTERNS = {"projector": "^projector/", "decoder": "^decoder/", "all": "."}  # of what may learn, by group


def _kinds(human: dict, first: dict, learning: dict, text_length: int) -> tuple:
    """(joint, on one kind of captions; tuned, on a few human ones after it). learning: rates by group of PATTERNS."""
    joint, tuned = base.stage("joint"), base.stage("tuned")
    joint.init, tuned.init = first, of.init("joint")
    for stage in (joint, tuned):
        stage.trainable = {group: PATTERNS[group] for group in learning}
        stage.learning_rate, stage.text_length = learning, text_length
    tuned.mixture = {"human": datasets.weighted(human, 1.0)}
    return joint, tuned


EMBEDDED_STEPS = {"stage0_vision": 400, "stage0_decoder": 300, "stage1": 100, "stage2": 60, "stage3": 120, "stage4": 200}


def _embedded() -> ConfigDict:
    """Models of a third of a million parameters: what five seeds of five experiments can pay on two cores."""
    config = _quick(stage4.get_config(), 50)
    shapes = config.run.shapes
    shapes.vision.update({"width": 64, "layers": 3, "heads": 4, "mlp_dim": 192})
    shapes.decoder.update({"width": 64, "layers": 3, "heads": 4, "kv_heads": 2, "head_dim": 16, "mlp_dim": 192})
    shapes.captioner.update({"width": 64, "layers": 1, "heads": 4, "kv_heads": 2, "head_dim": 16, "mlp_dim": 192})
    ai, human = datasets.scenes("train", "ai"), datasets.scenes("train", "human")
    learning = {"projector": 2e-3, "decoder": 2e-3}
    joint, tuned = _kinds(human, of.BACKBONES, learning, 32)
    scores.captions(tuned, "embedded")
    joint.validation = {style: datasets.scenes("val", style) for style in ("ai", "human")}
    tuned.steps, cells, text = 60, pathvqa.stage("embedded"), base.stage("text")
    text.init = {"decoder": "stage3"}
    text.trainable, text.learning_rate = {"all": "."}, {"all": 1e-3}  # it is never trained: what it begins with is looked at
    text.mixture = {"text": datasets.weighted(datasets.scenes("train", "text"), 1.0)}
    text.validation = {"text": datasets.scenes("val", "text")}
    text.steps, text.text_length = 1, 128
    for stage in (joint, tuned, text, cells):
        config.parents[stage.name] = stage
    stages = {stage.name: stage for stage in (config.stage, *config.parents.values())}
    for name, stage in stages.items():
        stage.batch_size = 32
        stage.steps = EMBEDDED_STEPS.get(name, stage.steps)
        for own in stage.suites.values():
            own.metrics = own.metrics[:1]
            own.decoding.max_new_tokens = 24 if own.task == "caption" else 10
            own.data.test["size"] = 200 if own.task == "caption" else 100  # scenes or slides
    _quick(config, 50)
    joint.eval_every, cells.steps = 20, 80
    steps = {name: stage.steps for name, stage in stages.items()}
    loss, asked = ("stage3", "captions"), ("stage4", "questions")
    both = {"CIDEr": of.suite("stage4", "captions", "CIDEr"), "accuracy": of.suite("stage4", "questions", "accuracy")}
    wrong = {f"{name}, wrong mask": {**each, "mask": "other"} for name, each in both.items()}
    starts = {"scratch": of.init("fresh"), **{name: of.init(name) for name in ("stage1", "stage2", "stage3", "stage4")}}
    sizes = {count: (("pathvqa.mixture", {"questions": {"kind": "cells", "split": "train", "size": count, "weight": 1.0}}),)
             for count in (100, 300, 1000)}  # fmt: skip
    longer = (("stage4.init", of.init("stage1")), ("stage4.steps", 320))  # two stages in place of four
    config.findings = of.settings(
        mask=of.masks(both | wrong, ("stage1", "stage4"), asked, 2, longer),
        data=of.data(ai, human, 150_000, "tuned", ("tuned", "captions")),
        alignment=of.alignment(240, loss, of.BACKBONES, learning, text=True),
        transfer=of.transfer("pathvqa", "questions", starts, sizes, ("pathvqa", "questions")),
        stages=of.each_stage(steps, asked, of.BACKBONES, stages["stage3"].to_dict()),
        **beyond.embedded(human, learning),
    )  # fmt: skip
    return config


def _flickr8k() -> ConfigDict:
    """2,000 photographs, a small captioner from scratch; `data` takes AI-made captions of examples/recaption.py."""
    config = flickr8k.get_config()
    shapes = config.run.shapes
    shapes.vision.update({"width": 96, "mlp_dim": 288})
    shapes.decoder.update({"width": 96, "kv_heads": 2, "head_dim": 24, "mlp_dim": 288})
    stage, suite = config.stage, config.stage.suites.captions
    suite.metrics, suite.decoding.num_beams = ("CIDEr",), 1
    own = suite.data.train.to_dict()
    made = {kind: {**own, "annotations": f"flickr8k_ai/train/{kind}.json"} for kind in ("ai", "human")}
    joint, tuned = _kinds(made["human"], of.init("fresh"), stage.learning_rate.to_dict(), stage.text_length)
    joint.validation = {kind: {**own, "annotations": f"flickr8k_ai/val/{kind}.json"} for kind in made}
    scores.on(tuned, "captions", suite.to_dict())
    config.parents = {"joint": joint, "tuned": tuned}
    _quick(config, 50)
    for each in (stage, joint, tuned):
        each.batch_size, each.eval_batches, each.weight_decay = 32, 20, stage.weight_decay
    joint.epochs, tuned.steps = 3.0, 60
    stage.steps, stage.eval_every, joint.eval_every = 400, 100, 40
    loss = ("flickr8k", "captions")
    outcomes = {
        "CIDEr": of.suite("flickr8k", "captions", "CIDEr"),
        "loss": {"of": "loss", "stage": "flickr8k", "source": "captions"},
    }
    limits = {f"{part}/8": {**own, "limit": 10_000 * part // 8, "weight": 1.0} for part in (1, 2, 4, 8)}
    amounts = {name: (("flickr8k.mixture", {"captions": limited}),) for name, limited in limits.items()}
    config.findings = of.settings(
        mask=of.masks(outcomes, ("flickr8k",), loss, 1),
        data=of.data(made["ai"], made["human"], 40_000, "tuned", ("tuned", "captions")),
        amount=of.experiment(
            "What do more captions give?", "four times as many captions give better ones, at as many updates", loss,
            swept=("flickr8k",), sweep=("2/8", "8/8"), arms=amounts, outcomes=outcomes, extra=True,
            compare=tuple((name, "8/8", other) for name in outcomes for other in ("2/8", "1/8", "4/8")),
        ),
    )  # fmt: skip
    config.findings.seconds.update({"position": 1e-4, "stage": 10.0, "score": 20.0})
    return config


def _full() -> ConfigDict:
    """The full-size chain: what `--config=findings` asks of small models."""
    config = _quick(stage4.get_config("0.9b"), 20)
    first = {"vision": "pretrained", "projector": "fresh", "decoder": "pretrained"}
    ai, human, learning = datasets.SHAREGPT4V, datasets.COCO_TRAIN, {"projector": 1e-4, "decoder": 5e-5}
    joint, tuned = _kinds(human, first, learning, 256)
    scores.captions(tuned, "0.9b")
    for stage in (joint, tuned):
        stage.batch_size, stage.accumulate, stage.buckets, stage.overlong = 256, 4, (64, 128, 256), "cut"
    held_out = config.parents.stage3.validation.captions.to_dict()
    joint.validation = {"ai": {**ai, "part": "validation"}, "human": held_out}
    tuned.steps, ready = 200, pathvqa.stage("0.9b")
    for stage in (joint, tuned, ready):
        config.parents[stage.name] = stage
    _quick(config, 20)
    joint.eval_every = 100
    stages = {stage.name: stage for stage in (config.stage, *config.parents.values())}
    steps = {"stage1": 2180, "stage2": 5845, "stage3": 2426, "stage4": 6413}  # an epoch each, by docs/recipe.md
    for name, count in steps.items():
        stages[name].steps = count
    asked = ("stage4", "captions")
    both = {"CIDEr": of.suite("stage4", "captions", "CIDEr"), "accuracy": of.suite("stage4", "questions", "accuracy")}
    starts = {"scratch": first, **{name: of.init(name) for name in ("stage1", "stage2", "stage3", "stage4")}}
    source = ready.mixture.questions.to_dict()
    sizes = {count: (("pathvqa.mixture", {"questions": {**source, "limit": count}}),) for count in (100, 300, 1000)}
    config.findings = of.settings(
        mask=of.masks(both, tuple(steps), asked, 2),
        data=of.data({**ai, "part": "train"}, human, 30_000_000, "tuned", ("tuned", "captions")),
        alignment=of.alignment(8000, ("stage3", "captions"), first, learning, text=False),
        transfer=of.transfer("pathvqa", "questions", starts, sizes, ("pathvqa", "questions")),
        stages=of.each_stage(steps, asked, first, stages["stage3"].to_dict()),
    )  # fmt: skip
    return config
