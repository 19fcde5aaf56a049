"""Downloads from a server that misbehaves, and archives that do."""

import gzip
import hashlib
import http.server
import io
import re
import signal
import subprocess
import sys
import tarfile
import textwrap
import threading
import time
import zipfile
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from event_files import EVENTS, nmnist

import neuromorphic_datasets as nd
from neuromorphic_datasets import DownloadError, _archive, _download, sets
from neuromorphic_datasets._download import RemoteFile, fetch

DATA = np.random.default_rng(0).bytes(300_000)
MD5 = hashlib.md5(DATA).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """A server that answers each path with the plays that a test has set for it, repeating the last."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.plays, self.requests = {}, []

    def url(self, path):
        return f"http://127.0.0.1:{self.server_port}/{path}"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        path = self.path[1:]
        self.server.requests.append((path, self.headers.get("Range")))
        plays = self.server.plays[path]
        play = plays.pop(0) if len(plays) > 1 else plays[0]
        play(self)
        self.close_connection = True

    def answer(self, status, body=b"", length=None, **headers):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)


def good(handler, data=DATA, ranges=True):
    wanted = handler.headers.get("Range")
    if not (wanted and ranges):
        return handler.answer(200, data)
    start = int(wanted[len("bytes=") : -1])
    if start >= len(data):
        return handler.answer(416)
    return handler.answer(206, data[start:], Content_Range=f"bytes {start}-{len(data) - 1}/{len(data)}")


def cut(handler):
    wanted = handler.headers.get("Range")
    start = int(wanted[len("bytes=") : -1]) if wanted else 0
    part = DATA[start : start + 100_000]
    headers = {"Content_Range": f"bytes {start}-{len(DATA) - 1}/{len(DATA)}"} if wanted else {}
    handler.answer(206 if wanted else 200, part, length=len(DATA) - start, **headers)


def drip(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(DATA)))
    handler.end_headers()
    for start in range(0, len(DATA), 30_000):
        handler.wfile.write(DATA[start : start + 30_000])
        handler.wfile.flush()
        time.sleep(0.03)


def answers(status, body=b"", **headers):
    return lambda handler: handler.answer(status, body, **headers)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(_download, "_BACKOFF_S", 0.001)
    running = Server()
    thread = threading.Thread(target=running.serve_forever, args=(0.01,))
    thread.start()
    yield running
    running.shutdown()
    thread.join()
    running.server_close()


def remote(server, *paths, **fields):
    return RemoteFile("data.bin", tuple(map(server.url, paths)), **{"md5": MD5, **fields})


def left_in(folder):
    return {path.name for path in folder.iterdir() if not path.name.endswith(".lock")}


HTML = b"<!DOCTYPE html><html>Please sign in</html>"
REFUSALS = {
    "202 empty": (answers(202), "answers 202 Accepted, without data"),
    "204": (answers(204), "answers 204 No Content, without data"),
    "200 empty": (answers(200), "an empty file"),
    "200 html": (answers(200, HTML, Content_Type="text/html; charset=utf-8"), "a web page instead of the file"),
    "200 html in disguise": (answers(200, b"\n" + HTML, Content_Type="application/zip"), "a web page"),
    "404": (answers(404, HTML, Content_Type="text/html"), "answers 404 Not Found"),
    "403": (answers(403), "answers 403 Forbidden"),
    "always 500": (answers(500), "answers 500 .*5 attempts"),
    "wrong file": (answers(200, b"x" * 100), "another file: 100 bytes with MD5"),
}


@pytest.mark.parametrize("play", REFUSALS)
def test_after_a_host_that_does_not_deliver_the_next_is_tried(server, tmp_path, play):
    server.plays = {"bad": [REFUSALS[play][0]], "good": [good]}
    path = fetch(remote(server, "bad", "good"), tmp_path)
    assert path.read_bytes() == DATA
    assert left_in(tmp_path) == {"data.bin"}


@pytest.mark.parametrize("play", REFUSALS)
def test_one_message_reports_all_failing_hosts(server, tmp_path, play):
    server.plays = {"bad": [REFUSALS[play][0]], "gone": [answers(404)]}
    with pytest.raises(DownloadError) as caught:
        fetch(remote(server, "bad", "gone", bytes=len(DATA)), tmp_path)
    message = str(caught.value)
    for part in (server.url("bad"), server.url("gone"), str(tmp_path / "data.bin"), MD5, f"{len(DATA)} bytes"):
        assert part in message
    assert re.search(REFUSALS[play][1], message)
    assert not (tmp_path / "data.bin").exists()


@pytest.mark.parametrize("status", [500, 503, 429, 408])
def test_a_temporary_failure_is_retried(server, tmp_path, status):
    server.plays = {"a": [answers(status), answers(status), good]}
    assert fetch(remote(server, "a"), tmp_path).read_bytes() == DATA
    assert len(server.requests) == 3


def test_a_lost_connection_resumes_where_it_stopped(server, tmp_path):
    server.plays = {"a": [cut]}
    assert fetch(remote(server, "a"), tmp_path).read_bytes() == DATA
    starts = [0] + [int(wanted[len("bytes=") : -1]) for _, wanted in server.requests[1:]]
    # Of each answer of 100 000 bytes only the last, incomplete piece is requested again.
    assert all(100_000 - _download._PIECE < later - start <= 100_000 for start, later in pairwise(starts))


def test_a_slow_drip_arrives(server, tmp_path):
    server.plays = {"a": [drip]}
    assert fetch(remote(server, "a"), tmp_path).read_bytes() == DATA


def test_a_redirect_is_followed(server, tmp_path):
    server.plays = {"a": [answers(302, Location=server.url("b"))], "b": [good]}
    assert fetch(remote(server, "a"), tmp_path).read_bytes() == DATA


def test_a_server_without_ranges_starts_over(server, tmp_path):
    server.plays = {"a": [lambda handler: good(handler, ranges=False)]}
    (tmp_path / "data.bin.part").write_bytes(b"something else")
    assert fetch(remote(server, "a"), tmp_path).read_bytes() == DATA


def test_a_partial_file_of_an_older_version_is_fetched_again(server, tmp_path):
    server.plays = {"a": [good]}
    (tmp_path / "data.bin.part").write_bytes(b"\0" * 1000)
    assert fetch(remote(server, "a"), tmp_path).read_bytes() == DATA
    assert server.requests == [("a", "bytes=1000-"), ("a", None)]


def test_a_whole_part_needs_no_more_bytes(server, tmp_path):
    server.plays = {"a": [good]}
    (tmp_path / "data.bin.part").write_bytes(DATA)
    assert fetch(remote(server, "a"), tmp_path).read_bytes() == DATA


def test_what_is_there_is_checked_and_not_fetched(server, tmp_path):
    (tmp_path / "data.bin").write_bytes(DATA)
    assert fetch(remote(server, "a"), tmp_path).read_bytes() == DATA
    assert server.requests == []
    (tmp_path / "data.bin").write_bytes(DATA[:-1])
    with pytest.raises(DownloadError, match="exists, but has another size or checksum"):
        fetch(remote(server, "a"), tmp_path)


def test_no_network_at_all(tmp_path, monkeypatch):
    monkeypatch.setattr(_download, "_BACKOFF_S", 0)
    file = RemoteFile("data.bin", ("http://127.0.0.1:9/a",), MD5)
    with pytest.raises(DownloadError, match=r"no connection: .*(?s:.*)To install it manually"):
        fetch(file, tmp_path)


def test_a_file_that_only_a_browser_gets(server, tmp_path):
    with pytest.raises(DownloadError, match="allows no automatic download"):
        fetch(remote(server, "a", by_hand=True), tmp_path)
    assert server.requests == []


def test_a_full_disk_is_reported_in_advance(server, tmp_path, monkeypatch):
    server.plays = {"a": [good]}
    monkeypatch.setattr(_download.shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    with pytest.raises(OSError, match=rf"expected {len(DATA)} bytes of free disk space, got 1000"):
        fetch(remote(server, "a"), tmp_path)
    assert left_in(tmp_path) == set()


def test_an_unwritable_root_is_named(server, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"root: expected a folder that can be written, got .*file"):
        fetch(remote(server, "a"), tmp_path / "file")


PROGRAM = textwrap.dedent("""
    import sys
    from pathlib import Path
    from neuromorphic_datasets import _download
    from neuromorphic_datasets._download import RemoteFile, fetch

    _download._PIECE = 10_000
    fetch(RemoteFile("data.bin", (sys.argv[1],), sys.argv[2]), Path(sys.argv[3]))
""")


def start(server, folder):
    arguments = [sys.executable, "-c", PROGRAM, server.url("a"), MD5, str(folder)]
    return subprocess.Popen(arguments, stderr=subprocess.DEVNULL)


def test_concurrent_processes_download_once(server, tmp_path):
    server.plays = {"a": [drip]}
    processes = [start(server, tmp_path) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert server.requests == [("a", None)]
    assert (tmp_path / "data.bin").read_bytes() == DATA


def test_a_killed_download_fetches_only_the_rest(server, tmp_path):
    def stall(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(DATA)))
        handler.end_headers()
        handler.wfile.write(DATA[:50_000])
        handler.wfile.flush()
        time.sleep(3)

    server.plays = {"a": [stall, good]}
    process = start(server, tmp_path)
    partial = tmp_path / "data.bin.part"
    while not (partial.exists() and partial.stat().st_size):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    had = partial.stat().st_size
    assert 0 < had < len(DATA)
    assert fetch(remote(server, "a"), tmp_path).read_bytes() == DATA
    assert server.requests == [("a", None), ("a", f"bytes={had}-")]
    assert left_in(tmp_path) == {"data.bin"}


def zipped(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(files, **fields):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            for field, value in fields.items():
                setattr(member, field, value)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def by_name(value):
    """Return the name of a case: the content of archives differs with the time."""
    return value if isinstance(value, str) else "archive"


FILES = {"a/1.txt": b"one", "a/b/2.txt": b"two" * 1000}


@pytest.mark.parametrize(
    ("name", "content", "files"),
    [
        ("x.zip", zipped(FILES), FILES),
        ("x.tar.gz", tarred(FILES), FILES),
        ("x.gz", gzip.compress(b"whole"), {"x": b"whole"}),
        ("x.zip", zipped({"in/y.zip": zipped(FILES)}), {f"in/{name}": content for name, content in FILES.items()}),
    ],
    ids=by_name,
)
def test_archives_are_unpacked_whole(tmp_path, name, content, files):
    (tmp_path / name).write_bytes(content)
    _archive.unpack(tmp_path / name, None)
    unpacked = {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert {key: value for key, value in unpacked.items() if not key.startswith(".")} == files
    manifest = _archive.manifest_path(tmp_path / name)
    assert _archive.damaged_files(manifest) == []
    first = sorted(files)[0]
    (tmp_path / first).write_bytes(b"onf")
    assert _archive.damaged_files(manifest) == [first]
    (tmp_path / first).unlink()
    assert _archive.damaged_files(manifest) == [first]


def linked_zip():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        member = zipfile.ZipInfo("link")
        member.external_attr = 0o120777 << 16
        archive.writestr(member, "/etc/passwd")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.zip", zipped({"ok": b"1", "../evil": b"2"})),
        ("x.zip", zipped({"/evil": b"2"})),
        ("x.zip", zipped({"a/../../evil": b"2"})),
        ("x.zip", linked_zip()),
        ("x.tar.gz", tarred({"../evil": b"2"})),
        ("x.tar.gz", tarred({"/evil": b"2"})),
        ("x.tar.gz", tarred({"link": b""}, type=tarfile.SYMTYPE, linkname="/etc/passwd")),
        ("x.tar.gz", tarred({"link": b""}, type=tarfile.LNKTYPE, linkname="ok")),
        ("x.tar.gz", tarred({"pipe": b""}, type=tarfile.FIFOTYPE)),
    ],
    ids=by_name,
)
def test_archives_that_reach_outside_are_refused(tmp_path, name, content):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / name).write_bytes(content)
    with pytest.raises(_archive.UnsafeArchiveError):
        _archive.unpack(folder / name, None)
    assert left_in(folder) == {name}
    assert left_in(tmp_path) == {"in"}


@pytest.mark.parametrize(
    ("name", "content"),
    [("x.zip", zipped(FILES)), ("x.tar.gz", tarred(FILES)), ("x.gz", gzip.compress(DATA))],
    ids=by_name,
)
@pytest.mark.parametrize("damage", ["cut", "flipped", "zeros"])
def test_damaged_archives_leave_nothing(tmp_path, name, content, damage):
    flipped = bytearray(content)
    flipped[len(content) // 3] ^= 0xFF
    bad = {"cut": content[: len(content) // 2], "flipped": bytes(flipped), "zeros": bytes(len(content))}[damage]
    (tmp_path / name).write_bytes(bad)
    with pytest.raises(ValueError, match=f"{name}: damaged"):
        _archive.unpack(tmp_path / name, None)
    assert left_in(tmp_path) == {name}


@pytest.fixture
def catalogue(server, monkeypatch):
    """N-MNIST's entry with small archives on the test's server."""
    archives = {
        "train": zipped({f"Train/{digit}/{i:05}.bin": nmnist() for digit in (3, 7) for i in range(4)}),
        "test": zipped({f"Test/{digit}/00001.bin": nmnist(EVENTS[:4]) for digit in (3, 7)}),
    }
    files = []
    for split, content in archives.items():
        server.plays[split] = [lambda handler, content=content: good(handler, content)]
        md5 = hashlib.md5(content).hexdigest()
        files.append(RemoteFile(f"{split}.zip", (server.url(split),), md5, len(content), split))
    entry = replace(sets.SETS["nmnist"], files=tuple(files))
    monkeypatch.setitem(sets.SETS, "nmnist", entry)
    return archives


def test_a_set_is_fetched_unpacked_and_read(server, catalogue, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"(?s)pass download=True.*train\.zip"):
        nd.load("nmnist", root=tmp_path)
    assert server.requests == []
    for _ in range(2):
        recordings = nd.load("nmnist", root=tmp_path, download=True)
        assert recordings.targets.tolist() == [3] * 4 + [7] * 4
    assert server.requests == [("train", None)]
    assert nd.download("nmnist", root=tmp_path) == tmp_path / "NMNIST"
    assert server.requests == [("train", None), ("test", None)]
    assert len(nd.load("nmnist", "all", root=tmp_path)) == 10
    assert not list(tmp_path.rglob("*.zip"))


def test_a_manually_installed_archive_is_unpacked(server, catalogue, tmp_path):
    (tmp_path / "NMNIST").mkdir()
    (tmp_path / "NMNIST" / "train.zip").write_bytes(catalogue["train"])
    assert len(nd.load("nmnist", root=tmp_path)) == 8
    (tmp_path / "NMNIST" / "test.zip").write_bytes(catalogue["test"][:-5])
    with pytest.raises(ValueError, match=r"test\.zip: expected \d+ bytes with MD5 .*, got another file"):
        nd.load("nmnist", "test", root=tmp_path)
    assert server.requests == []


def test_verify_and_clear(server, catalogue, tmp_path, tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))  # which clearing searches too
    with pytest.raises(FileNotFoundError):
        nd.verify("nmnist", root=tmp_path)
    folder = nd.download("nmnist", root=tmp_path)
    assert nd.verify("nmnist", root=tmp_path) == []
    (folder / "Train" / "3" / "00002.bin").write_bytes(nmnist(EVENTS[::-1]))
    (folder / "Test" / "7" / "00001.bin").unlink()
    assert nd.verify("nmnist", root=tmp_path) == [
        f"{folder / 'Train' / '3' / '00002.bin'}: missing or changed",
        f"{folder / 'Test' / '7' / '00001.bin'}: missing or changed",
    ]
    with pytest.warns(UserWarning, match="1 of 8 recordings are left out"):
        packs = nd.cache("nmnist", root=tmp_path, cache=tmp_path, on_error="skip")
    assert sorted(nd.clear("nmnist", root=tmp_path)) == sorted([*packs, folder])
    assert list(tmp_path.iterdir()) == []


def test_verify_reads_a_manual_copy_and_clear_keeps_it(tmp_path):
    for digit, content in ((3, nmnist()), (7, b"123")):
        (tmp_path / "Train" / str(digit)).mkdir(parents=True)
        (tmp_path / "Train" / str(digit) / "00001.bin").write_bytes(content)
    nd.clear("nmnist", root=tmp_path)  # files that other tests packed
    [wrong] = nd.verify("nmnist", root=tmp_path)
    assert "7/00001.bin: byte 0" in wrong
    assert nd.clear("nmnist", root=tmp_path) == []
    assert len(nd.load("nmnist", root=tmp_path)) == 2


UNPACK = textwrap.dedent("""
    import os, sys, time
    from pathlib import Path
    from neuromorphic_datasets import _archive

    replace, count = os.replace, 0

    def slow(source, target):
        global count
        count += 1
        if count == 3:  # some files are in place, others are not
            Path(sys.argv[1] + ".now").touch()
            time.sleep(60)
        replace(source, target)

    os.replace = slow
    _archive.unpack(Path(sys.argv[1]), None)
""")


def test_a_killed_unpacking_is_finished_by_the_next_run(server, catalogue, tmp_path):
    killed, clean = tmp_path / "killed", tmp_path / "clean"
    for root in (killed, clean):
        (root / "NMNIST").mkdir(parents=True)
        (root / "NMNIST" / "train.zip").write_bytes(catalogue["train"])
    archive = killed / "NMNIST" / "train.zip"
    process = subprocess.Popen([sys.executable, "-c", UNPACK, str(archive)])
    while not (killed / "NMNIST" / "train.zip.now").exists():
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(list(killed.rglob("*.bin"))) > 0
    (killed / "NMNIST" / "train.zip.now").unlink()
    trees = []
    for root in (killed, clean):
        assert len(nd.load("nmnist", root=root)) == 8
        paths = [path for path in sorted(root.rglob("*")) if path.is_file() and path.suffix != ".lock"]
        trees.append({str(path.relative_to(root)): path.read_bytes() for path in paths})
    assert trees[0] == trees[1]
