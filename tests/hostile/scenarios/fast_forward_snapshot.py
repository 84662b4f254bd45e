"""A stolen key moved the snapshot far ahead: the device goes back when the key is rotated, and not before."""

from repository import new_key


def prepare(repo):
    repo.begin()
    repo.snapshot.version = 1000
    repo.release("snapshot")
    repo.snapshot.version = 1


def attack(repo):
    repo.release("snapshot")


def honest(repo):
    repo.set_keys("snapshot", [new_key()])
    repo.release_root()
    repo.release("snapshot")


EXPECT = {
    "says": "timestamp metadata goes back: snapshot.json was at version 1001 and is offered at 2",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 1001, "targets": 1},
    "twin": {"root": 2, "timestamp": 3, "snapshot": 2, "targets": 1},
}
