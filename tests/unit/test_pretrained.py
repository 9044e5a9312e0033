"""Pretrained files: found, fetched whole with the right hash, or one line that says what to do."""

import hashlib
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from runtime.errors import InputError
from runtime.pretrained import KNOWN_FILES, find_pretrained

CONTENT = bytes(range(256)) * 12_000  # three blocks
DIGITS = hashlib.sha256(CONTENT).hexdigest()[:8]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests.append(self.path)
        if self.path == "/none.pth":
            self.send_error(404)
            return
        self.send_response(200)
        if self.path != "/unsized.pth":
            self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[:1_500_000] if self.path == "/cut.pth" else CONTENT)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http_server:
        http_server.requests = []
        thread = threading.Thread(target=http_server.serve_forever, args=(0.01,))
        thread.start()
        yield http_server
        http_server.shutdown()
        thread.join()


def known_at(server, name, digits=DIGITS):
    return {name: (f"http://127.0.0.1:{server.server_port}/{name}", digits)}


@pytest.mark.parametrize("name", ["good.pth", "unsized.pth"])
def test_a_missing_file_is_fetched_once(tmp_path, server, name, capsys):
    known = known_at(server, name)
    for _ in range(2):
        path = find_pretrained(name, tmp_path / "weights", known)
        assert path == tmp_path / "weights" / name
        assert path.read_bytes() == CONTENT
    assert server.requests == [f"/{name}"]
    assert os.listdir(tmp_path / "weights") == [name]
    assert capsys.readouterr() == ("", "")  # the bar is for terminals


@pytest.mark.parametrize(
    "name, digits, reason",
    [
        ("good.pth", "00000000", f"its SHA-256 begins with {DIGITS}, not 00000000"),
        ("none.pth", DIGITS, "HTTP Error 404: Not Found"),
        ("cut.pth", DIGITS, f"only 1500000 of {len(CONTENT)} bytes arrived"),
    ],
)
def test_a_bad_transfer_leaves_nothing(tmp_path, server, name, digits, reason):
    known = known_at(server, name, digits)
    with pytest.raises(InputError) as caught:
        find_pretrained(name, tmp_path, known)
    assert str(caught.value) == (
        f"{tmp_path / name}: this pretrained file is missing and could not be downloaded "
        f"({reason}); get it from {known[name][0]} and put it there"
    )
    assert os.listdir(tmp_path) == []


def test_offline(tmp_path, server):
    known = known_at(server, "good.pth")
    server.shutdown()
    server.server_close()  # nobody listens there now
    with pytest.raises(InputError, match=r"good\.pth: .*Connection refused.*; get it from http"):
        find_pretrained("good.pth", tmp_path, known)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "name, advice",
    [("resnet101_reducedfc.pth", "dbolya/yolact links to it; put it"), ("x.pth", "put the file")],
)
def test_files_without_an_address(tmp_path, name, advice):
    with pytest.raises(InputError, match=f"{name}: this pretrained file is missing; .*{advice}"):
        find_pretrained(name, tmp_path)
    (tmp_path / name).touch()
    assert find_pretrained(name, tmp_path) == tmp_path / name


def test_table():
    for name, (address, digits) in KNOWN_FILES.items():
        assert address.startswith("https://")
        assert address.endswith("/" + name)
        assert name.endswith(f"-{digits}.pth")
