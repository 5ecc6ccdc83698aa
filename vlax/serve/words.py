"""Ids as they come, as text that can be shown: whole characters, nothing of a text that ends the answer, nothing taken back."""

from collections.abc import Sequence

from vlax.text.prompts import Encoder

GAP = "\ufffd"  # of a character whose other bytes are still to come


class Words:
    """add(ids) -> what is new. In the end the parts together are `text`: `encoder.decode(ids)`, up to the first of `stop`."""

    def __init__(self, encoder: Encoder, stop: Sequence[str] = ()):
        self.encoder, self.stop = encoder, tuple(stop)
        self.ids: list[int] = []
        self.text, self.stopped = "", False

    def add(self, ids: Sequence[int], last: bool = False) -> str:
        """What can be shown after these. `stopped` says that one of `stop` came, after which nothing is added."""
        if self.stopped:
            return ""
        self.ids += ids
        text = self.encoder.decode(self.ids)
        found = [at for stop in self.stop if (at := text.find(stop)) >= 0]
        if found:
            text, self.stopped = text[: min(found)], True
        elif not last:
            text = text.rstrip(GAP)
            text = text[: len(text) - self._begun(text)]
        # A tokenizer that changes what it wrote before (none that is known) would have the change left out.
        new = text[len(self.text) :] if text.startswith(self.text) else ""
        self.text += new
        return new

    def _begun(self, text: str) -> int:
        """Characters at the end with which one of `stop` may begin."""
        return max(
            (n for stop in self.stop for n in range(1, len(stop)) if text.endswith(stop[:n])),
            default=0,
        )
