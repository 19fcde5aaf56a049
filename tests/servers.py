"""A server of one file that answers as a test wants."""

import hashlib
import http.server
import time

import numpy as np

from neuromorphic_datasets._download import RemoteFile

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


def remote(server, *paths, **fields):
    return RemoteFile("data.bin", tuple(map(server.url, paths)), **{"md5": MD5, **fields})


def left_in(folder):
    return {path.name for path in folder.iterdir() if not path.name.endswith(".lock")}
