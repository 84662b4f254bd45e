"""The server begins its answer with a text that would clear the screen."""

from server import raw
from texts import TERMINAL


def attack(repo):
    repo.release("timestamp")
    repo.fault("timestamp", raw(TERMINAL.encode() * 100 + b"\r\n\r\n"))


def honest(repo):
    repo.release("timestamp")


TIMEOUT = 10
EXPECT = {
    "says": "timestamp.json: .*http parse fail",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
}
