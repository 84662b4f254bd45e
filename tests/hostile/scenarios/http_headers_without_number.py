"""The answer has ten thousand headers."""

from server import raw
from texts import MARKER


HEADER = f"X-{MARKER}: {MARKER}\r\n"


def attack(repo):
    repo.release("timestamp")
    repo.fault("timestamp", raw(f"HTTP/1.1 200 OK\r\n{HEADER * 10_000}\r\n".encode(), repo.bytes("timestamp")))


def honest(repo):
    repo.release("timestamp")
    body = repo.bytes("timestamp")
    repo.fault("timestamp", raw(f"HTTP/1.1 200 OK\r\n{HEADER * 20}\r\n".encode(), body))


TIMEOUT = 10
EXPECT = {
    "says": "cannot fetch .*timestamp.json: ",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
}
