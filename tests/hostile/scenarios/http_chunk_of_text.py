"""The answer comes in chunks, and the length of one is a text."""

from server import Reply, raw
from texts import MARKER


START = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunked(body):
    """The body in one chunk."""
    parts = (START, b"%x\r\n" % len(body), body, b"\r\n0\r\n\r\n")
    return Reply(lambda: iter(parts), raw=True, whole=body)


def attack(repo):
    repo.release("timestamp")
    repo.fault("timestamp", raw(START + f"{MARKER}\r\n".encode(), repo.bytes("timestamp")))


def honest(repo):
    repo.release("timestamp")
    body = repo.bytes("timestamp")
    repo.fault("timestamp", chunked(body))


TIMEOUT = 10
EXPECT = {
    "says": "cannot fetch .*timestamp.json: .*chunk length",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
}
