"""What an experiment is: a question, arms, what is measured of each, and which comparisons decide.

An outcome is one of
    suite        the score of a suite's metric of a trained stage, beside that of the blind twin; by row, so that pictures pair.
                 mask="other": the same model decoded with a mask that it was not trained with
    loss         the last held-out loss of a source, of a trained stage; lower is better
    reach        the share of its updates that a stage takes until the held-out loss of a source is as low as that which every
                 arm comes to, for each seed; lower is better
    perplexity   that of a held-out source at the beginning of a stage which is never trained; lower is better
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from vlax.errors import VlaxError
from vlax.training.stages import closest

KINDS = ("suite", "loss", "reach", "perplexity")
Changes = tuple[tuple[str, Any], ...]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One figure of a trained arm. suite, metric: of a suite; source: a held-out one; mask: "" or "other"."""

    name: str
    of: str
    stage: str
    suite: str = ""
    metric: str = ""
    source: str = ""
    mask: str = ""

    @property
    def higher(self) -> bool:
        """Whether more is better."""
        return self.of == "suite"


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two arms by one outcome. better: the arm that the claim holds for better."""

    outcome: str
    better: str
    worse: str


@dataclasses.dataclass(frozen=True)
class Experiment:
    """See `configs/experiments.py`, whose fields these are."""

    name: str
    question: str
    claim: str
    rates: tuple[str, str]
    swept: tuple[str, ...]
    sweep: tuple[str, ...]
    arms: Mapping[str, Changes]
    outcomes: Mapping[str, Outcome]
    compare: tuple[Comparison, ...]
    deciding: int
    line: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Plan:
    """config.findings: seeds, the sweep's seed and factors, what an update takes, and the experiments that were asked for."""

    seeds: tuple[int, ...]
    sweep_seed: int
    factors: tuple[float, ...]
    seconds: Mapping[str, float]
    experiments: tuple[Experiment, ...]


def read(config: ConfigDict, names: Sequence[str] = ()) -> Plan:
    """The experiments of a config by name; where none is named all but those that are extra. VlaxError lists what there is."""
    if "findings" not in config:
        raise VlaxError("this config has no experiments; --config=findings has (configs/findings.py)")
    given = config.findings
    known = {each["name"]: each for each in given.experiments}
    for name in names:
        if name not in known:
            raise VlaxError(f"there is no experiment {name!r}{closest(name, known)}; there are {', '.join(known)}")
    seeds = tuple(given.seeds)
    if not seeds or len(set(seeds)) < len(seeds) or given.sweep_seed in seeds:
        raise VlaxError(
            f"findings.seeds={seeds} with sweep_seed={given.sweep_seed}: seeds differ from each other, and none is the "
            "sweep's, whose rates were chosen by it"
        )
    if not given.factors or min(given.factors) <= 0:
        raise VlaxError(
            f"findings.factors={tuple(given.factors)}: rates are multiplied by positive numbers, 1.0 alone at least"
        )
    stages = {stage.name: stage for stage in (*config.parents.values(), config.stage)}
    asked = [known[name] for name in dict.fromkeys(names)] or [each for each in known.values() if not each["extra"]]
    made = tuple(_experiment(each, stages) for each in asked)
    return Plan(seeds, given.sweep_seed, tuple(given.factors), given.seconds.to_dict(), made)


def _experiment(given: Mapping[str, Any], stages: Mapping[str, ConfigDict]) -> Experiment:
    """VlaxError for an arm, outcome, stage, suite or field that there is not."""
    name, arms = given["name"], {arm: tuple(changes) for arm, changes in given["arms"].items()}

    def known(what: str, word: str, choices: Mapping[str, Any] | Sequence[str]) -> None:
        if word not in choices:
            raise VlaxError(f"experiment {name}: there is no {what} {word!r}{closest(word, choices)}; there are "
                            f"{', '.join(choices)}")  # fmt: skip

    outcomes = {key: Outcome(key, **each) for key, each in given["outcomes"].items()}
    for outcome in outcomes.values():
        known("kind of outcome", outcome.of, KINDS)
        known("stage", outcome.stage, stages)
        if outcome.of == "suite":
            known(f"suite of {outcome.stage}", outcome.suite, stages[outcome.stage].suites)
        else:
            known(f"held-out source of {outcome.stage}", outcome.source, stages[outcome.stage].validation)
    compare = tuple(Comparison(*each) for each in given["compare"])
    for each in compare:
        known("outcome", each.outcome, outcomes)
        known("arm", each.better, arms)
        known("arm", each.worse, arms)
    for arm in given["sweep"]:
        known("arm", arm, arms)
    for stage in (given["rates"][0], *given["swept"]):
        known("stage", stage, stages)
    known(f"held-out source of {given['rates'][0]}", given["rates"][1], stages[given["rates"][0]].validation)
    for changes in arms.values():
        for path, _ in changes:
            known("stage", path.split(".")[0], [*stages, "run"])
    if not 0 < given["deciding"] <= len(compare):
        raise VlaxError(f"experiment {name}: {given['deciding']} of {len(compare)} comparisons decide; at least one does")
    if line := given["line"]:
        known("outcome", line["outcome"], outcomes)
        for arm in line["x"]:
            known("arm", arm, arms)
    plain: dict[str, Any] = {key: given[key] for key in ("question", "claim", "deciding", "line")}
    plain |= {key: tuple(given[key]) for key in ("rates", "swept", "sweep")}
    return Experiment(name, arms=arms, outcomes=outcomes, compare=compare, **plain)
