"""A stolen key moved the targets far ahead: the device goes back when the snapshot's key is rotated, and not before."""

from repository import new_key


def prepare(repo):
    repo.begin()
    repo.targets.version = 1000
    repo.release()
    repo.targets.version = 1


def attack(repo):
    repo.release()


def honest(repo):
    repo.set_keys("snapshot", [new_key()])
    repo.release_root()
    repo.release()


EXPECT = {
    "says": "snapshot metadata goes back: targets.json was at version 1001 and is offered at 2",
    "stored": {"root": 1, "timestamp": 3, "snapshot": 2, "targets": 1001},
    "twin": {"root": 2, "timestamp": 3, "snapshot": 3, "targets": 2},
}
