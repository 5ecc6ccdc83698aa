"""What one server takes, and the errors that say that something is more, each with its HTTP status."""

import dataclasses

from vlax.errors import VlaxError


@dataclasses.dataclass(frozen=True)
class Limits:
    """Of one request, but for the last three."""

    body: int = 32 << 20  # bytes
    pixels: int = 50_000_000  # of one picture, before it is resized
    pictures: int = 8
    characters: int = 1 << 17  # of text: tokenizers take minutes for megabytes
    prompt: int = 4096  # ids of text
    answer: int = 4096  # ids
    beams: int = 8
    requests: int = 256  # at once, those that wait included
    kept: int = 256 << 20  # bytes of what a model made of pictures, on the device, for later requests about them
    kv_cache: str = ""  # how keys and values are kept while answers are decoded: "" as computed, or "int8"


class Refusal(VlaxError):
    """An error with a status of its own; `param` is the field that it is about. Every other VlaxError is a 400."""

    def __init__(self, status: int, text: str, param: str | None = None):
        super().__init__(text)
        self.status, self.param = status, param


KINDS = {
    404: "not_found_error",
    403: "permission_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
}


def refused(param: str, text: str) -> Refusal:
    """A field of a body is wrong."""
    return Refusal(400, f"{param}: {text}", param)


def as_json(error: VlaxError) -> tuple[int, dict[str, object]]:
    """(status, body) as OpenAI's clients expect errors."""
    status, param = (error.status, error.param) if isinstance(error, Refusal) else (400, None)
    kind = KINDS.get(status, "invalid_request_error")
    return status, {"error": {"message": str(error), "type": kind, "param": param, "code": None}}
