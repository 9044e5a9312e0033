"""A run's pictures as parts of the page, in bounded size."""

import base64
import io
from pathlib import Path
from typing import NamedTuple

from runtime.report.families import PICTURES

WHOLE_BYTES = 700_000  # a larger PNG is put in as JPEG
LONGEST_PX = 2400  # ... and its longer side made shorter
MOST_BYTES = 8_000_000  # of all pictures together; further ones are only named
READ_BYTES = 200_000_000  # a larger file is not opened
LEFT_OUT = ("curves.png",)  # the page has these curves itself


class Picture(NamedTuple):
    """A picture of the run folder; uri: its content, "" where only its name is told."""

    name: str
    title: str
    uri: str
    width: int
    height: int


class Pictures:
    """The run folder's pictures; what has not changed is not encoded again."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._known: dict[tuple[str, int, int], Picture] = {}

    def read(self) -> list[Picture]:
        """Those that are there, in the page's order."""
        paths = {path.name: path for path in sorted(self._folder.glob("*.png"))
                 if path.name not in LEFT_OUT}
        names = [*(name for name in PICTURES if name in paths),
                 *(name for name in paths if name not in PICTURES)]
        known, found, total = {}, [], 0
        for name in names:
            try:
                status = paths[name].stat()
            except OSError:
                continue  # it has just been removed
            key = (name, status.st_mtime_ns, status.st_size)
            picture = self._known.get(key) or _encoded(paths[name], status.st_size)
            known[key] = picture
            if total + len(picture.uri) > MOST_BYTES:
                picture = picture._replace(uri="")
            total += len(picture.uri)
            found.append(picture)
        self._known = known
        return found


def _encoded(path: Path, num_bytes: int) -> Picture:
    from PIL import Image

    title = PICTURES.get(path.name, path.stem.replace("_", " "))
    nothing = Picture(path.name, title, "", 0, 0)
    if num_bytes > READ_BYTES:
        return nothing
    try:
        with Image.open(path) as picture:
            width, height = picture.size
            if num_bytes <= WHOLE_BYTES:
                picture.verify()
                content, kind = path.read_bytes(), "png"
            else:
                small = picture.convert("RGB")
                small.thumbnail((LONGEST_PX, LONGEST_PX))
                width, height = small.size
                encoded = io.BytesIO()
                small.save(encoded, "JPEG", quality=88)
                content, kind = encoded.getvalue(), "jpeg"
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return nothing  # no picture after all
    text = base64.b64encode(content).decode()
    return Picture(path.name, title, f"data:image/{kind};base64,{text}", width, height)
