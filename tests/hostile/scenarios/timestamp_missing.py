"""The server says that it has no timestamp."""

from server import failing


def attack(repo):
    repo.fault("timestamp", failing(404))


def honest(repo):
    repo.release("timestamp")


EXPECT = {
    "says": "timestamp metadata is not there",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
}
