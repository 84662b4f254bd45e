"""The server says that it has no snapshot."""

from server import failing


def attack(repo):
    repo.release("snapshot")
    repo.fault("snapshot", failing(403))


def honest(repo):
    repo.release("snapshot")


EXPECT = {
    "says": "snapshot metadata is not there",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1},
}
