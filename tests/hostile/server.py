"""A web server on 127.0.0.1 that misbehaves, path by path. One server has many sites, so that scenarios run side by
side; each site logs what it was asked for and remembers every body that it sent whole."""

import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# An endless body stops here and hangs: what has not refused it by then has no limit, and must not fill the memory.
ENOUGH_BYTES = 64 * 1024 * 1024
BYTE_PAUSE_SECONDS = 0.05


@dataclass(frozen=True)
class Reply:
    """`body` yields what is sent; None lets the connection hang until the client gives up."""

    body: Callable[[], Iterator[bytes | None]]
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    whole: bytes | None = None
    # Whether the body is all that is sent: it brings its own status line and headers.
    raw: bool = False


def whole(body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> Reply:
    headers = {"Content-Length": str(len(body))} | (headers or {})
    return Reply(lambda: iter([body]), status, headers, whole=body)


def failing(status: int) -> Reply:
    return whole(b"", status)


def raw(head: bytes, body: bytes = b"") -> Reply:
    """These bytes instead of an HTTP response, and then the body."""
    return Reply(lambda: iter([head, body]), raw=True, whole=body)


def redirect(location: str) -> Reply:
    return whole(b"", 302, {"Location": location})


def endless(start: bytes = b"") -> Reply:
    """`start` and then spaces, which JSON allows anywhere: only a limit ends it."""

    def body() -> Iterator[bytes | None]:
        yield start
        for _ in range(0, ENOUGH_BYTES, 65536):
            yield b" " * 65536
        yield None

    return Reply(body)


def slow(body: bytes) -> Reply:
    """The right bytes, one at a time."""
    return Reply(lambda: (bytes([byte]) for byte in body), headers={"Content-Length": str(len(body)), "X-Slow": "1"})


def late(body: bytes, until: datetime) -> Reply:
    """The headers at once, and the body when that time has come."""

    def parts() -> Iterator[bytes | None]:
        threading.Event().wait(max(0.0, (until - datetime.now(timezone.utc)).total_seconds()))
        yield body

    return Reply(parts, headers={"Content-Length": str(len(body))}, whole=body)


def silent() -> Reply:
    """The headers, and then nothing."""
    return Reply(lambda: iter([None]), headers={"Content-Length": "100"})


def cut(body: bytes, after: int) -> Reply:
    """Announces all of it and closes the connection in the middle."""
    return Reply(lambda: iter([body[:after]]), headers={"Content-Length": str(len(body))})


class Site:
    """What is served under one prefix. `faults` go before `files`."""

    def __init__(self, prefix: str, port: int):
        self.prefix = prefix
        self.url = f"http://127.0.0.1:{port}/{prefix}"
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, Reply] = {}
        self.log: list[str] = []
        self.sent: dict[str, set[bytes]] = {}

    def answer(self, path: str) -> Reply:
        self.log.append(path)
        reply = self.faults.get(path)
        if reply is None:
            reply = whole(self.files[path]) if path in self.files else failing(404)
        if reply.whole is not None and reply.status == 200:
            self.sent.setdefault(path, set()).add(reply.whole)
        return reply


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "Server"

    def do_GET(self) -> None:
        self.close_connection = True
        prefix, _, path = self.path.lstrip("/").partition("/")
        site = self.server.sites.get(prefix)
        reply = site.answer(path) if site else failing(404)
        try:
            self.send_reply(reply)
        except OSError:
            pass  # The client has had enough, which is what many scenarios are about.

    def send_reply(self, reply: Reply) -> None:
        if not reply.raw:
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Connection", "close")
            self.end_headers()
        for part in reply.body():
            if part is None:
                self.until_the_client_leaves()
                return
            self.wfile.write(part)
            if "X-Slow" in reply.headers:
                self.server.stopping.wait(BYTE_PAUSE_SECONDS)

    def until_the_client_leaves(self) -> None:
        self.connection.settimeout(90)
        try:
            self.connection.recv(1)
        except socket.timeout:
            pass

    def log_message(self, format: str, *arguments: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.sites: dict[str, Site] = {}
        self.stopping = threading.Event()

    def site(self, name: str) -> Site:
        site = self.sites[name] = Site(name, self.server_address[1])
        return site

    def __enter__(self) -> "Server":
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self.shutdown()
        self.server_close()
