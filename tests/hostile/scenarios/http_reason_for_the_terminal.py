"""The server fails for a reason that would clear the screen, and says more in the body."""

from server import raw
from texts import REORDERED, TERMINAL


REASON = REORDERED * 10


def attack(repo):
    repo.release("timestamp")
    repo.fault("timestamp", raw(f"HTTP/1.1 500 {REASON}\r\n\r\n{TERMINAL * 1000}".encode()))


def honest(repo):
    repo.release("timestamp")
    body = repo.bytes("timestamp")
    repo.fault("timestamp", raw(f"HTTP/1.1 200 {REASON}\r\n\r\n".encode(), body))


TIMEOUT = 10
EXPECT = {
    "says": "timestamp.json: the server answers 500",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
}
