"""What eval.py does: load an export, predict, score, write."""

import dataclasses

import jax
from etils import epath
from ml_collections import ConfigDict

from vlax import api, stages
from vlax.errors import VlaxError
from vlax.evaluation import compare, predictions, protocol, runner, samples, scoring
from vlax.evaluation.protocol import Suite
from vlax.evaluation.table import score_table


@dataclasses.dataclass(frozen=True)
class Options:
    """The flags of eval.py; each is explained there."""

    checkpoint: str = ""
    suites: tuple[str, ...] = ()
    data: str = ""
    images: str = ""
    answers: tuple[str, ...] = ()
    answers_by: str = "trie"
    predictions: str = ""
    against: str = ""
    different_protocols: bool = False
    limit: int = 0
    batch_size: int = 0
    twin: bool = True
    blind: bool = False
    report_samples: int = 200
    data_root: str = ""  # run.data_root, which no flag of eval.py repeats


def export_directory(plan: stages.StagePlan, checkpoint: str) -> epath.Path:
    """The export that `--checkpoint` means; VlaxError when the stage has not got that far."""
    if checkpoint and checkpoint not in ("last", "best"):
        return epath.Path(checkpoint)
    if not plan.finished:
        raise VlaxError(
            f"{plan.name} has no finished export in {plan.directory}; train it first: python train.py with the same flags"
        )
    other = plan.directory / f"export-{checkpoint}"
    # Without a second export the best state was the last one.
    return other if checkpoint not in ("", plan.stage.select) and other.exists() else plan.export


def chosen(config: ConfigDict, options: Options) -> list[Suite]:
    """The suites that the flags and the config ask for."""
    own = {name: content.to_dict() for name, content in config.stage.suites.items()}
    extra = {"custom": protocol.custom(options.data, options.images)} if "custom" in options.suites else {}
    found = protocol.suites(own, options.suites, extra)
    if not options.answers:
        return found
    if all(suite.is_caption for suite in found):
        raise VlaxError("--answers is for questions; none of the suites asks any")
    closed = {"answers": options.answers, "answers_by": options.answers_by}
    return [suite if suite.is_caption else dataclasses.replace(suite, **closed) for suite in found]


def run(config: ConfigDict, workdir: str, options: Options = Options()) -> dict:
    """Evaluates the asked-for stage; returns what scores.json holds ({} on all processes but the first)."""
    plan = stages.chain(config, epath.Path(workdir))[-1]
    options = dataclasses.replace(options, data_root=config.run.data_root)
    suites = chosen(config, options)
    sets = runner.open_sets(suites, options.data_root, options.limit)
    below = "+".join(suite.name for suite in suites) if options.suites else ""
    if options.predictions:
        return _external(epath.Path(workdir), sets, options)
    stages.check_identity(plan)
    model = api.load(str(export_directory(plan, options.checkpoint)), dtype=config.run.dtype)
    title = plan.name if options.checkpoint in ("", plan.stage.select) else f"{plan.name} ({options.checkpoint})"
    twin = None
    if options.twin or options.blind:
        seed = config.run.seed
        deranged = [dataclasses.replace(test, rows=runner.derange(test.rows, seed)) for test in sets]
        twin = _predicted(f"{title} blind twin", model, deranged, plan.directory / "eval-blind" / below, options, seed)
        _write(twin, None, options if options.blind else dataclasses.replace(options, report_samples=0))
        if options.blind:
            return twin.scores
    mine = _predicted(title, model, sets, plan.directory / "eval" / below, options, None)
    other = compare.find(epath.Path(workdir), options.against, below) if options.against else None
    return _write(mine, twin, options, other)


@dataclasses.dataclass
class Evaluation:
    """Everything about one set of predictions on its way to disk. `lines`: by set name; empty on all processes but one."""

    title: str
    directory: epath.Path
    sets: list[runner.TestSet]
    lines: dict[str, list[dict]]
    protocols: dict[str, dict]
    about: dict
    data_root: str
    model: api.Model | None = None
    scores: dict = dataclasses.field(default_factory=dict)


def _about(sets, data_root: str, model: dict) -> dict:
    """What scores.json says beside scores and protocol."""
    where = {"data_root": data_root, "sets": {test.name: dict(test.suite.data) for test in sets}}
    return {"model": model, "where": where}


def _predicted(title: str, model, sets, directory, options: Options, seed: int | None) -> Evaluation:
    protocols = {test.name: runner.settings(model, test, seed) for test in sets}
    runs = {name: runner.run_key(model, proto) for name, proto in protocols.items()}
    path = directory / "predictions.jsonl"
    lines = {t.name: runner.predict(model, t, path, runs[t.name], options.batch_size) for t in sets}
    known = {key: model.manifest.get(key) for key in ("stage", "checksums")} | {"mask": model.config.mask}
    about = _about(sets, options.data_root, known) | {"runs": runs}
    return Evaluation(title, directory, sets, lines, protocols, about, options.data_root, model)


def _external(workdir: epath.Path, sets, options: Options) -> dict:
    """Scores the predictions of another system, or older ones of vlax, without a model."""
    if len(sets) != 1:
        raise VlaxError(f"--predictions is scored on one suite, not on {len(sets)}: name it with --suite=NAME")
    test, path = sets[0], epath.Path(options.predictions)
    lines = {test.name: predictions.external(str(path), test.rows, test.name)}
    if "://" not in str(path) and test.suite.post_processing:
        lines = {name: [{**r, "prediction": test.suite.finish(r["prediction"])} for r in rows] for name, rows in lines.items()}
    decided = {"suite": test.name, "source": test.source.name, "fingerprint": test.source.fingerprint, "rows": len(test.rows),
               "metrics": list(test.suite.metrics), "prompt": "unknown", "decoding": "unknown"}  # fmt: skip
    about = _about(sets, options.data_root, {"predictions": path.name}) | {"runs": {test.name: ""}}
    directory = workdir / "external" / path.stem
    directory.mkdir(parents=True, exist_ok=True)
    kept = directory / "predictions.jsonl"
    if kept != path:
        kept.write_text("")
        predictions.append(kept, lines[test.name])
    protocols = {test.name: {**decided, "hash": protocol.digest(decided)}}
    done = Evaluation(path.stem, directory, sets, lines, protocols, about, options.data_root)
    other = compare.find(workdir, options.against, test.name) if options.against else None
    return _write(done, None, options, other)


def _write(mine: Evaluation, twin: Evaluation | None, options: Options, other: compare.Kept | None = None) -> dict:
    """Scores, table, samples.png and report.html of one evaluation, on the first process."""
    if jax.process_index() != 0:
        return {}
    by_set, scored = {}, {}
    for test in mine.sets:
        lines = mine.lines[test.name]
        prior = scoring.prior_lines(lines, test.suite, mine.data_root)
        by_set[test.name], scored[test.name] = scoring.score_set(
            test.suite, lines, twin.lines[test.name] if twin else None, prior
        )
    formulas = {test.name: scoring.formulas(test.suite, by_set[test.name]) for test in mine.sets}
    about = {"title": mine.title, "formulas": formulas, **mine.about}
    mine.scores = scoring.write_scores(mine.directory, by_set, mine.protocols, about)
    hashed = ", ".join(f"{t.name} ({len(t.rows):,} rows, protocol {mine.protocols[t.name]['hash']})" for t in mine.sets)
    print(f"\n{mine.title}: {hashed}")
    print(score_table(scoring.table_rows(by_set)))
    pairs = {}
    if other:
        kept = compare.Kept(mine.title, mine.directory, mine.scores, mine.lines)
        pairs = compare.paired(kept, other, options.different_protocols)
        print(f"\n{compare.text(kept, other, pairs)}")
    samples.write(mine, twin, scored, options.report_samples, other, pairs)
    made = "predictions.jsonl, scores.json, samples.png" + (" and report.html" if options.report_samples else "")
    print(f"{made} are in {mine.directory}", flush=True)
    return mine.scores
