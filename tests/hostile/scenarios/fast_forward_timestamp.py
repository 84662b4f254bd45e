"""A stolen key moved the timestamp far ahead: the device goes back when the key is rotated, and not before."""

from repository import new_key


def prepare(repo):
    repo.begin()
    repo.timestamp.version = 1000
    repo.release("timestamp")
    repo.timestamp.version = 1


def attack(repo):
    repo.release("timestamp")


def honest(repo):
    repo.set_keys("timestamp", [new_key()])
    repo.release_root()
    repo.release("timestamp")


EXPECT = {
    "says": "timestamp metadata goes back: timestamp.json was at version 1001 and is offered at 2",
    "stored": {"root": 1, "timestamp": 1001, "snapshot": 1, "targets": 1},
    "twin": {"root": 2, "timestamp": 2, "snapshot": 1, "targets": 1},
}
