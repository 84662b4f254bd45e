"""The server promises a timestamp and then says nothing more."""

from server import silent


def attack(repo):
    repo.fault("timestamp", silent())


def honest(repo):
    repo.release("timestamp")


TIMEOUT = 2
EXPECT = {
    "says": "timestamp.json: .*timeout",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
}
