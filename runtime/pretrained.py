"""Finds pretrained files in a folder or fetches them. Nothing else here touches the network.

`torch.hub.download_url_to_file` waits for ever on a server that falls silent, and takes a transfer
that was cut off for a whole file where no hash is known, as for segmentation's ImageNet files.
"""

import hashlib
import http.client
import urllib.request
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from tqdm import tqdm

from runtime.errors import InputError
from runtime.files import write_atomically

_TORCHVISION = "https://download.pytorch.org/models/"
# File name -> (address, first digits of its SHA-256); torchvision's names end in those digits.
KNOWN_FILES: dict[str, tuple[str, str]] = {
    f"{name}-{digits}.pth": (f"{_TORCHVISION}{name}-{digits}.pth", digits)
    for name, digits in (
        ("resnet18", "5c106cde"),
        ("resnet18", "f37072fd"),
        ("resnet34", "b627a593"),
        ("resnet50", "19c8e357"),
        ("resnet50", "0676ba61"),
        ("resnet101", "5d3b4d8f"),
        ("resnet101", "63fe2227"),
        ("resnet152", "394f9c45"),
    )
}
_YOLACT_PAGE = "the section Training of https://github.com/dbolya/yolact links to it"
WHERE_TO_GET = {  # no address that a program could depend on
    "resnet101_reducedfc.pth": _YOLACT_PAGE,
    "darknet53.pth": _YOLACT_PAGE,
}
TIMEOUT_S = 30  # without a single byte
BLOCK_BYTES = 1 << 20


def find_pretrained(
    name: str,
    folder: str | Path,
    known: Mapping[str, tuple[str, str]] = KNOWN_FILES,
    progress: bool = True,
) -> Path:
    """The path `folder/name`, after downloading the file when it is not there.

    known:    file name -> (address, first digits of its SHA-256)
    progress: show a bar while downloading, on a terminal

    A file appears under its name only when all of it has arrived and its hash is right. Under
    several processes use `find_pretrained_once`.
    Raises InputError, saying where to get the file and where to put it, when it is not there and
    cannot be fetched; SaveError when it cannot be written.
    """
    path = Path(folder) / name
    if path.is_file():
        return path
    if name not in known:
        source = WHERE_TO_GET.get(name)
        advice = f"{source}; put it there" if source else "put the file there"
        raise InputError(f"{path}: this pretrained file is missing; {advice}")
    address, digits = known[name]
    write_atomically(path, partial(_download, path, address, digits, progress))
    return path


def find_pretrained_once(run: Any, name: str, folder: str | Path) -> Path:
    """`find_pretrained` of several processes: rank 0 fetches what is missing (all ranks).

    run: the Run
    """
    run.from_main(lambda: (find_pretrained(name, folder), None))
    return find_pretrained(name, folder)


def _download(path: Path, address: str, digits: str, progress: bool, file: BinaryIO) -> None:
    digest = hashlib.sha256()
    received = 0
    try:
        response = urllib.request.urlopen(address, timeout=TIMEOUT_S)
    except (OSError, http.client.HTTPException) as error:
        raise _failed(path, address, error) from error
    with response:
        size = response.length  # None when the server does not say
        hidden = None if progress else True  # None: hidden unless on a terminal
        with tqdm(total=size, desc=path.name, unit="B", unit_scale=True, disable=hidden) as bar:
            while block := _read_block(response, path, address):
                file.write(block)
                digest.update(block)
                received += len(block)
                bar.update(len(block))
    if size is not None and received != size:
        raise _failed(path, address, f"only {received} of {size} bytes arrived")
    if not digest.hexdigest().startswith(digits):
        reason = f"its SHA-256 begins with {digest.hexdigest()[: len(digits)]}, not {digits}"
        raise _failed(path, address, reason)


def _read_block(response: http.client.HTTPResponse, path: Path, address: str) -> bytes:
    try:
        return response.read(BLOCK_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise _failed(path, address, error) from error


def _failed(path: Path, address: str, reason: Exception | str) -> InputError:
    text = str(reason).strip("<>")
    return InputError(
        f"{path}: this pretrained file is missing and could not be downloaded ({text}); "
        f"get it from {address} and put it there"
    )
