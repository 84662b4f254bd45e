"""A new snapshot has expired already."""

from repository import YESTERDAY


def attack(repo):
    repo.snapshot.expires = YESTERDAY
    repo.release("snapshot")


def honest(repo):
    repo.release("snapshot")


EXPECT = {
    "says": "snapshot metadata expired",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1},
}
