"""What eval.py does: load an export, predict, score, write."""

import jax
from etils import epath
from ml_collections import ConfigDict

from vlax import api, stages
from vlax.decoding import DecodeConfig
from vlax.errors import VlaxError
from vlax.evaluation import runner, scoring
from vlax.evaluation.table import score_table


def export_directory(plan: stages.StagePlan, checkpoint: str) -> epath.Path:
    """The export that `--checkpoint` means; VlaxError when the stage has not got that far."""
    if not plan.finished:
        raise VlaxError(
            f"{plan.name} has no finished export in {plan.directory}; train it first: python train.py with the same flags"
        )
    if checkpoint in ("", plan.stage.select):
        return plan.export
    if checkpoint in ("last", "best"):
        other = plan.directory / f"export-{checkpoint}"
        # Without a second export the best state was the last one.
        return other if other.exists() else plan.export
    return epath.Path(checkpoint)


def run(
    config: ConfigDict, workdir: str, checkpoint: str = "", *, blind: bool = False, limit: int = 0, against: str = ""
) -> dict:
    """Evaluates the asked-for stage; returns what scores.json holds.

    blind: score the twin alone. limit: the first rows of each set. against: another evaluated stage of the workdir, whose
    predictions are compared row by row.
    """
    plan = stages.chain(config, epath.Path(workdir))[-1]
    stages.check_identity(plan)
    model = api.load(str(export_directory(plan, checkpoint)), dtype=config.run.dtype)
    sets = runner.open_sets(plan.stage.test, config.run.data_root, limit)
    decode = DecodeConfig(max_new_tokens=plan.stage.max_new_tokens, num_beams=plan.stage.num_beams)
    twin_lines, twin_dir, twin_protocol = _predict(model, sets, decode, plan, config, blind=True)
    if blind:
        return _write(plan, twin_dir, twin_lines, None, sets, twin_protocol, config, "blind twin")
    lines, directory, proto = _predict(model, sets, decode, plan, config, blind=False)
    scores = _write(plan, directory, lines, twin_lines, sets, proto, config, "")
    if against:
        other = epath.Path(workdir) / against / "eval" / "predictions.jsonl"
        if not other.exists():
            raise VlaxError(f"{against} was not evaluated: there is no {other}. Run eval.py with its config first")
        print(f"\n{plan.name} - {against}, paired over rows:")
        print("\n".join(scoring.compare(lines, runner.read_lines(other))))
    return scores


def _predict(model, sets, decode, plan, config, *, blind: bool):
    seed = config.run.seed if blind else None
    if blind:
        sets = [runner.TestSet(s.name, s.source, runner.derange(s.rows, seed)) for s in sets]
    directory = plan.directory / ("eval-blind" if blind else "eval")
    proto = runner.protocol(model, sets, decode, seed)
    return runner.predict(model, sets, decode, directory, proto), directory, proto


def _write(plan, directory, lines, twin, sets, proto, config, note: str) -> dict:
    if jax.process_index() != 0:
        return {}
    by_set, rows = scoring.score_sets(lines, twin, plan.stage.prior, config.run.data_root)
    scores = scoring.write_scores(directory, by_set, proto)
    title = f"{plan.name}{' ' + note if note else ''}"
    print(f"\n{title}: {', '.join(f'{s.name} ({len(s.rows)} rows)' for s in sets)}; protocol {proto['hash']}")
    print(score_table(rows))
    headline = ", ".join(f"{k} {v:.3f}" for k, v in scoring.flat(by_set).items() if k in ("CIDEr", "accuracy"))
    scoring.sheet(directory / "samples.png", lines, twin, sets, title, f"{headline}; rows from best to worst")
    print(f"predictions, scores.json and samples.png are in {directory}", flush=True)
    return scores
