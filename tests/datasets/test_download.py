"""Downloads from a server that misbehaves."""

import re
import signal
import subprocess
import sys
import textwrap
import time
from itertools import pairwise
from types import SimpleNamespace

import pytest
from servers import DATA, MD5, answers, cut, drip, good, left_in, remote

from neuromorphic_datasets import DownloadError, _download
from neuromorphic_datasets._download import RemoteFile, fetch

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


@pytest.mark.thorough
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
