"""The server redirects to a text that is no address: a path like any other, for the error to repeat."""

from server import redirect
from texts import MARKER


def attack(repo):
    repo.release("timestamp")
    repo.fault("timestamp", redirect(f"http://[{MARKER}"))


def honest(repo):
    repo.release("timestamp")


TIMEOUT = 10
EXPECT = {
    "says": "timestamp metadata is not there",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
}
