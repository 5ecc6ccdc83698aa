"""How tokens are chosen."""

import dataclasses

from vlax.errors import VlaxError
from vlax.models.kv_cache import KINDS


@dataclasses.dataclass(frozen=True)
class DecodeConfig:
    """How to choose tokens. VlaxError for values that are out of range or contradict each other."""

    max_new_tokens: int = 32  # EOS included
    num_beams: int = 1  # 1: greedy, or sampling if temperature > 0
    temperature: float = 0.0  # 0: the most probable token; above 0: sample from softmax(logits / temperature)
    top_p: float = 1.0  # sample from the fewest tokens that hold this much probability (Holtzman et al. 2020)
    length_penalty: float = 1.0  # beams only: hypotheses compare by sum_logp / length ** length_penalty
    seed: int = 0  # sampling only
    kv_cache: str = ""  # how keys and values are kept: "" in the compute dtype, "int8" in half of bfloat16's memory
    chunk: int = 8  # decoder steps between two looks at whether all rows are done; rounded to share the steps evenly

    def __post_init__(self) -> None:
        for name in ("max_new_tokens", "num_beams", "chunk"):
            if getattr(self, name) < 1:
                raise VlaxError(f"decoding: {name}={getattr(self, name)} must be at least 1")
        if self.kv_cache not in KINDS:
            raise VlaxError(f"decoding: kv_cache={self.kv_cache!r} is not one of int8, or nothing for the compute dtype")
        if self.temperature < 0:
            raise VlaxError(f"decoding: temperature={self.temperature} must be 0 (greedy) or above")
        if not 0 < self.top_p <= 1:
            raise VlaxError(f"decoding: top_p={self.top_p} must be above 0 and at most 1")
        if self.num_beams > 1 and self.temperature > 0:
            raise VlaxError(
                f"decoding: num_beams={self.num_beams} searches and temperature={self.temperature} samples; "
                "set num_beams=1 to sample or temperature=0 to search"
            )
        if self.top_p < 1 and self.temperature == 0:
            raise VlaxError(f"decoding: top_p={self.top_p} has no effect without sampling; set a temperature above 0")
