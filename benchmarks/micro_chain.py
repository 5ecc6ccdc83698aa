"""A chain of three stages that trains in seconds: the embedded one with everything small. --config=benchmarks/micro_chain.py

--config=benchmarks/micro_chain.py:hung and :bad break the reader of the second host (`host_faults.py`).
"""

from configs import stage1

STEPS, EVAL_EVERY, BATCH = 24, 8, 8
SIZES = {"train": 48, "val": 8, "test": 8}  # scenes


def get_config(variant: str = "embedded"):
    if variant != "embedded":
        from benchmarks import host_faults

        host_faults.break_reader(variant)
    config = stage1.get_config()
    run = config.run
    run.tensorboard, run.log_every, run.bpe_vocab = False, 4, 300
    run.bpe_text.text.size = 200
    run.shapes.vision.update(image_size=16, patch_size=8, width=32, layers=1, heads=2, mlp_dim=32)
    for part in (run.shapes.decoder, run.shapes.captioner):
        part.update(layers=1, width=32, heads=2, kv_heads=1, head_dim=16, mlp_dim=32)
    for stage in (config.stage, *config.parents.values()):
        stage.steps, stage.batch_size, stage.accumulate, stage.eval_every = STEPS, BATCH, 2, EVAL_EVERY
        stage.generate_samples, stage.eval_batches, stage.reference, stage.overlong = 0, 1, "", "cut"
        stage.text_length = 96 if stage.name == "stage0_decoder" else 40
        suites = [source for suite in stage.suites.values() for source in suite.data.values()]
        for suite in stage.suites.values():
            suite.decoding.max_new_tokens, suite.metrics = 6, ("Bleu",)
        for source in [*stage.mixture.values(), *stage.validation.values(), *suites]:
            if source.kind == "scenes":
                source.size = SIZES[source.split]
    return config
