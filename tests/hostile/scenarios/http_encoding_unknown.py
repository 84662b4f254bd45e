"""The server says that the file is encoded in a way of its own."""

from server import raw
from texts import MARKER


def attack(repo):
    repo.release("timestamp")
    repo.fault("timestamp", raw(f"HTTP/1.1 200 OK\r\nContent-Encoding: {MARKER}\r\n\r\n{MARKER}".encode()))


def honest(repo):
    repo.release("timestamp")


TIMEOUT = 10
EXPECT = {
    "says": "timestamp metadata cannot be read: it is no JSON",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
}
