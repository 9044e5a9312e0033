"""The warnings of a log.txt: read once, then only what has come since."""

import os
from pathlib import Path

MARK = b"warning: "
CHUNK_BYTES = 1 << 22
MOST_KINDS = 100  # different warnings that are kept
MOST_LETTERS = 500  # of one


class Warnings:
    """The warnings of a log, each once with how often it came.

    start: bytes of the file that are an earlier run's

    counts: {text: how often}, in the order in which they first came; left_out: further ones
    """

    def __init__(self, path: Path, start: int = 0):
        self._path, self._at = path, start
        self.counts: dict[str, int] = {}
        self.left_out = 0

    def read(self) -> None:
        """Take up the whole lines that have come since the last call; no file is fine."""
        try:
            with open(self._path, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size < self._at:  # it is another file now
                    self.counts, self.left_out, self._at = {}, 0, 0
                file.seek(self._at)
                # no more than was there at first: it may grow, and a device has no end
                while chunk := file.read(min(CHUNK_BYTES, max(0, size - self._at))):
                    end = chunk.rfind(b"\n") + 1
                    if not end and len(chunk) < CHUNK_BYTES:
                        break
                    end = end or len(chunk)
                    self._take(chunk[:end])
                    self._at += end
                    file.seek(self._at)
        except FileNotFoundError:
            pass

    def _take(self, text: bytes) -> None:
        at = text.find(MARK)
        while at >= 0:
            begin, end = text.rfind(b"\n", 0, at) + 1, text.find(b"\n", at)
            end = len(text) if end < 0 else end
            if _is_prefix(text[begin:at]):
                self._count(text[at + len(MARK):end].decode("utf-8", "replace")[:MOST_LETTERS])
            at = text.find(MARK, end)

    def _count(self, text: str) -> None:
        if text in self.counts or len(self.counts) < MOST_KINDS:
            self.counts[text] = self.counts.get(text, 0) + 1
        else:
            self.left_out += 1


def _is_prefix(text: bytes) -> bool:
    """Whether a line may begin so before its "warning: ": nothing, or a clock."""
    return not text or (text.startswith(b"[") and text.endswith(b"] "))
