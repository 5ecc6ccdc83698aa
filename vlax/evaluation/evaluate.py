"""What eval.py does: load an export, predict, score, write."""

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from vlax.errors import VlaxError, spared
from vlax.evaluation import compare, made, predictions, runner, samples, scoring, trained_on
from vlax.evaluation.options import Options, chosen, export_directory
from vlax.evaluation.runner import Evaluation, TestSet
from vlax.evaluation.table import score_table
from vlax.model import api, exports, opening
from vlax.params import distributed, groups, sharding
from vlax.process import lease
from vlax.scores.java import check_spice
from vlax.storage import jsonl, state
from vlax.suites import protocol
from vlax.training import guess, stages
from vlax.training.trackers import tracker

DEFAULTS = Options()


def run(config: ConfigDict, workdir: str, options: Options = DEFAULTS) -> dict:
    """Evaluates the asked-for stage; returns what scores.json holds ({} on all processes but the first).

    Whatever can be wrong (flags, files, Java, the evaluation to compare with) is looked at before anything is decoded.
    """
    config = guess.settled(config, workdir)
    workdir, root = epath.Path(workdir), config.run.data_root
    plans = stages.chain(config, workdir)
    plan = plans[-1]
    sets = runner.open_sets(chosen(config, options), root, options.limit)
    if options.predictions:
        if len(sets) != 1:
            raise VlaxError(f"--predictions is scored on one suite, not on {len(sets)}: name it with --suite=NAME")
        other = compare.find(workdir, options.against, sets[0].name) if options.against else None
        theirs = _external(workdir, sets[0], options, root)
        return _write(theirs, None, _scored([(theirs, None)], _priors(sets, root))[0], options, other)
    stages.check_identity(plan)
    export, below = export_directory(plan, options.checkpoint), options.folder()
    other = compare.find(workdir, options.against, below) if options.against else None
    kinds = [*(["eval-blind"] if options.twin or options.blind else ()), *([] if options.blind else ["eval"])]
    tracker.check(config.run.trackers)
    with lease.hold(*(plan.directory / kind / below for kind in kinds), on=distributed.is_main()):
        scores = _evaluate(config, plan, str(export), sets, options, other, trained_on.find(plans, sets))
    if not options.blind:
        where = plan.directory / "eval" / below
        files = [path for name in ("report.html", "samples.png", "scores.json") if (path := where / name).exists()]
        tracker.attach(plan, files, scoring.by_name(scores))
    return scores


def _evaluate(
    config: ConfigDict,
    plan: stages.StagePlan,
    export: str,
    sets: list[TestSet],
    options: Options,
    other: compare.Kept | None,
    known: dict[str, list[dict[str, Any]]],
) -> dict:
    """The stage itself and its blind twin. known: of `trained_on.find`."""
    below = options.folder()
    mesh = sharding.make_mesh(runner.decoding_mesh(config.run, export))
    how = {"templates": config.run.templates, "quantise": options.quantise}
    model = opening.load(export, dtype=config.run.dtype, mesh=mesh, **how)
    title = f"{plan.name} ({options.checkpoint})" if options.checkpoint else plan.name
    folders = plan.directory / "eval" / below, plan.directory / "eval-blind" / below
    return scored(model, title, sets, *folders, options, config.run.data_root, config.run.seed, other, known)


def scored(
    model: api.Model, title: str, sets: list[TestSet], directory: epath.Path, blind: epath.Path, options: Options, root: str,
    seed: int, other: compare.Kept | None = None, known: Mapping[str, list[dict[str, Any]]] = MappingProxyType({}),
    kept: bool = True,
) -> dict[str, Any]:  # fmt: skip
    """A model and its blind twin on some sets, kept in two directories; what scores.json holds.

    known: of `trained_on.find`. seed: of the twin's exchange of pictures. kept: False where the directories go afterwards.
    """
    priors = _priors(sets, root)
    model = model.quantised(options.quantise)
    if "checksums" not in model.manifest:  # of an export they are known; predictions are kept by them
        gathered = {path: distributed.gather(value) for path, value in groups.arrays(model.params).items()}
        own = {"stage": model.where, "checksums": exports.module_checksums(gathered)}
        model = dataclasses.replace(model, manifest=model.manifest | own)
    twin, both = None, list[tuple[Evaluation, Evaluation | None]]()
    if options.twin or options.blind:
        deranged = [dataclasses.replace(test, rows=runner.derange(test.rows, seed)) for test in sets]
        twin = _predicted(f"{title} blind twin", model, deranged, blind, options, root, seed)
        twin.kept = kept
        both.append((twin, None))
    if not options.blind:
        mine = _predicted(title, model, sets, directory, options, root, None)
        mine.kept = kept
        mine.about |= {"trained_on": dict(known)} if known else {}
        both.append((mine, twin))
    results = _scored(both, priors)
    if twin:
        _write(twin, None, results[0], options if options.blind else dataclasses.replace(options, report_samples=0))
        if options.blind:
            return twin.scores
    return _write(mine, twin, results[-1], options, other)


def _priors(sets: Sequence[TestSet], root: str) -> dict[str, scoring.Prior | None]:
    for test in sets:
        if "SPICE" in test.suite.metrics:
            check_spice()
    return {test.name: scoring.fit_prior(test.suite, root) for test in sets} if distributed.is_main() else {}


def _about(sets: Sequence[TestSet], root: str, model: dict[str, Any], runs: Mapping[str, str]) -> dict[str, Any]:
    """What scores.json says beside scores and protocol."""
    where = {"data_root": root, "sets": {test.name: dict(test.suite.data) for test in sets}}
    return {"model": model, "where": where, "runs": dict(runs)}


def _predicted(
    title: str, model: api.Model, sets: list[TestSet], directory: epath.Path, options: Options, root: str, seed: int | None
) -> Evaluation:
    protocols = {test.name: runner.settings(model, test, seed) for test in sets}
    runs = {name: runner.run_key(model, proto) for name, proto in protocols.items()}
    path = directory / "predictions.jsonl"
    raw = {t.name: runner.predict(model, t, path, runs[t.name], options.batch_size) for t in sets}
    lines = {t.name: predictions.finished(raw[t.name], t.suite) for t in sets}
    known = {key: model.manifest.get(key) for key in ("stage", "checksums")}
    known |= {"mask": model.config.mask, "dtype": runner.dtype(model)}
    return Evaluation(title, directory, sets, lines, protocols, _about(sets, root, known, runs), model)


def _external(workdir: epath.Path, test: TestSet, options: Options, root: str) -> Evaluation:
    """The predictions of another system, or older ones of vlax, as if they had been made here."""
    path = epath.Path(options.predictions)
    raw = predictions.external(str(path), test.rows, test.name)
    content = {
        "source": {"name": test.source.name, "fingerprint": test.source.fingerprint, "rows": len(test.rows)},
        "prompt": "unknown", "decoding": "unknown", "blind": None, **protocol.scored(test.suite),
    }  # fmt: skip
    mark = protocol.digest([(line["id"], line["prediction"]) for line in raw])
    directory = workdir / "external" / f"{path.stem}-{test.name}-{mark[:6]}"
    kept = directory / "predictions.jsonl"
    if distributed.is_main() and not kept.exists():
        directory.mkdir(parents=True, exist_ok=True)
        state.write(kept, jsonl.lines({**line, "run": mark} for line in raw))
    protocols = {test.name: {**content, "suite": test.name, "hash": protocol.digest(content)}}
    about = _about([test], root, {"predictions": path.name}, {test.name: mark})
    return Evaluation(path.stem, directory, [test], {test.name: predictions.finished(raw, test.suite)}, protocols, about)


Result = tuple[dict[str, dict[str, Any]], dict[str, samples.ByWhom]]  # by set what `scoring.score_set` gives


def _scored(
    evaluations: Sequence[tuple[Evaluation, Evaluation | None]], priors: Mapping[str, scoring.Prior | None]
) -> list[Result]:
    """The scores of evaluations of the same rows, each beside its twin. METEOR takes seconds to start and is started once for
    all of them; the twin, scored beside the model, is what was scored by itself."""
    results: list[Result] = [({}, {}) for _ in evaluations]
    for test in evaluations[0][0].sets if distributed.is_main() else ():
        with scoring.Scorer(test.suite, evaluations[0][0].lines[test.name]) as score:
            for (mine, twin), (by_set, scored) in zip(evaluations, results, strict=True):
                lines, blind = mine.lines[test.name], twin.lines[test.name] if twin else None
                result = scoring.score_set(test.suite, lines, blind, priors[test.name], score)
                by_set[test.name], scored[test.name] = result
    return results


def _write(
    mine: Evaluation,
    twin: Evaluation | None,
    result: Result,
    options: Options,
    other: compare.Kept | None = None,
) -> dict[str, Any]:
    """Scores, table, samples.png and report.html of one evaluation, on the first process."""
    if not distributed.is_main():
        return {}
    by_set, scored = result
    formulas = {test.name: scoring.formulas(test.suite, by_set[test.name]) for test in mine.sets}
    about = {"title": mine.title, "formulas": formulas, **mine.about}
    mine.scores = scoring.write_scores(mine.directory, by_set, mine.protocols, about)
    made.write(mine, twin)
    hashed = ", ".join(f"{t.name} ({len(t.rows):,} rows, protocol {mine.protocols[t.name]['hash']})" for t in mine.sets)
    print(f"\n{mine.title}: {hashed}")
    print(score_table(scoring.table_rows(by_set)))
    pairs = {}
    if other:
        kept = compare.Kept(mine.title, mine.directory, mine.scores, mine.lines)
        pairs = compare.paired(kept, other, options.different_protocols)
        print(f"\n{compare.text(kept, other, pairs)}")
    if not mine.kept:
        return mine.scores
    with spared("samples.png"):
        samples.sheet(mine, twin, scored)
    if options.report_samples:
        with spared("report.html"):
            samples.report(mine, twin, scored, options.report_samples, other, pairs)
    files = "predictions.jsonl, scores.json, samples.png" + (" and report.html" if options.report_samples else "")
    print(f"{files} are in {mine.directory}", flush=True)
    return mine.scores
