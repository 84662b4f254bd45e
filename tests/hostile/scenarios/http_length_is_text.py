"""The length of the answer is a text."""

from server import raw
from texts import MARKER


def attack(repo):
    repo.release("timestamp")
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {MARKER}\r\n\r\n"
    repo.fault("timestamp", raw(head.encode(), repo.bytes("timestamp")))


def honest(repo):
    repo.release("timestamp")


TIMEOUT = 10
EXPECT = {
    "says": "cannot fetch .*timestamp.json: .*content-length",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
}
