"""The name of a header would clear the screen."""

from server import raw
from texts import TERMINAL


def attack(repo):
    repo.release("timestamp")
    repo.fault("timestamp", raw(f"HTTP/1.1 200 OK\r\n{TERMINAL}: 1\r\n\r\n".encode(), repo.bytes("timestamp")))


def honest(repo):
    repo.release("timestamp")


TIMEOUT = 10
EXPECT = {
    "says": "cannot fetch .*timestamp.json: .*http parse fail",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
}
