"""The server redirects to an address of 60,000 characters where nobody listens."""

from server import redirect
from texts import long


def attack(repo):
    repo.release("timestamp")
    repo.fault("timestamp", redirect("http://127.0.0.1:9/" + long("x", 60_000)))


def honest(repo):
    repo.release("timestamp")


TIMEOUT = 10
EXPECT = {
    "says": "cannot fetch .*timestamp.json: ",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
}
