"""Transfer to pathology questions. Plain: the embedded cells, from stage 4. `:0.9b`: PathVQA, from the full-size stage 4.

`:0.9b` expects PathVQA's parquet files below run.data_root (vlax/suites/protocols/pathvqa_test.toml).
"""

from configs import base, datasets, scores, stage4
from vlax.suites import files


def stage(variant: str):
    s = base.stage("pathvqa")
    s.init = {"vision": "stage4", "projector": "stage4", "decoder": "stage4"}
    s.trainable = {"projector": "^projector/", "decoder": "^decoder/"}
    suite = files.read("pathvqa_test" if variant == "0.9b" else "embedded_cells")
    if variant == "0.9b":
        s.learning_rate = {"projector": 2e-5, "decoder": 2e-5}
        s.batch_size, s.accumulate, s.text_length, s.epochs, s.eval_every = 64, 1, 96, 3.0, 300
    else:
        # The tower was made on coloured shapes; cells look like nothing that it has seen, so it learns along.
        s.trainable = {"vision": "^vision/", "projector": "^projector/", "decoder": "^decoder/"}
        s.learning_rate = {"vision": 5e-4, "projector": 1e-3, "decoder": 1e-3}
        s.steps, s.eval_every, s.text_length = 500, 250, 40
    s.mixture = {"questions": datasets.weighted(suite["data"]["train"], 1.0)}
    return scores.on(s, "questions", suite)


stages, get_config = base.chain(stage, stage4.stages)
