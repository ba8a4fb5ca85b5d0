# SPDX-License-Identifier: Apache-2.0
"""The API server of apiserver.py with faults: the next requests that match are answered as told."""
import threading

import apiserver
import protobuf


class Fault:
    """match: text that must stand in "PATH?QUERY", before which a verb other than GET is written.
    run(handler) answers. times: how often."""

    def __init__(self, match, run, times=1, unless=None):
        self.match, self.run, self.times, self.unless = match, run, times, unless
        self.hits = 0

    def wants(self, path):
        return (self.hits < self.times and self.match in path
                and not (self.unless and self.unless in path))


def status(code, reason="", message="", headers=()):
    return lambda h: h.refuse(code, reason, message, headers)


def raw_body(body, code=200, kind=apiserver.JSON):
    """Any bytes as a complete answer."""
    return lambda h: h.answer(code, body, kind=kind)


def recorded(path):
    """A recorded error: its status line, headers and body as the real server gave them."""
    def run(h):
        with open(path, "rb") as f:
            head, body = f.read().replace(b"\r\n", b"\n").split(b"\n\n", 1)
        h.answer(int(head.split()[1]), body.strip() + b"\n")
    return run


def stream(data, cut=0, end="close", piece=0, kind=apiserver.JSON):
    """A watch's bytes. end: "close" properly, "cut" in the middle of a chunk, "hang" silently."""
    def run(h):
        h.start_chunks(kind)
        body = data[:len(data) - cut]
        for i in range(0, len(body), piece or len(body) or 1):
            h.chunk(body[i:i + (piece or len(body))])
        if end == "close":
            h.chunk(b"")
        elif end == "cut":
            h.wfile.write(b"ffff\r\n{\"type\":")
            h.wfile.flush()
            h.close_connection = True
        elif end == "hang":
            h.server.released.wait()
            h.close_connection = True
    return run


def raw_socket(data):
    """Bytes that need not be HTTP at all; then the connection is closed."""
    def run(h):
        h.wfile.write(data)
        h.wfile.flush()
        h.close_connection = True
    return run


class Handler(apiserver.Handler):
    def injected(self):
        path = self.path if self.command == "GET" else f"{self.command} {self.path}"
        with self.server.lock:
            self.server.requests.append((path, self.headers.get("Accept")))
            if self.server.protobuf_code and protobuf.TYPE in (self.headers.get("Accept") or ""):
                self.refuse(self.server.protobuf_code, "NotAcceptable", "only JSON here")
                return True
            fault = next((f for f in self.server.faults if f.wants(path)), None)
            if not fault:
                return False
            fault.hits += 1
        fault.run(self)
        return True


class FakeApiServer(apiserver.ApiServer):
    def __init__(self, protobuf_code=0, **kwargs):
        """protobuf_code: the HTTP status for whoever asks for protobuf."""
        self.protobuf_code = protobuf_code
        self.lock = threading.Lock()
        self.faults, self.requests = [], []
        self.released = threading.Event()
        super().__init__(handler=Handler, **kwargs)

    def fault(self, *args, **kwargs):
        fault = Fault(*args, **kwargs)
        with self.lock:
            self.faults.append(fault)
        return fault

    def count(self, *words):
        with self.lock:
            return sum(all(w in path for w in words) for path, _ in self.requests)

    def __exit__(self, *exc):
        self.released.set()
        super().__exit__(*exc)
