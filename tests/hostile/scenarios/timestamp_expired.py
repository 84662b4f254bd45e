"""A new timestamp has expired already."""

from repository import YESTERDAY


def attack(repo):
    repo.timestamp.expires = YESTERDAY
    repo.release("timestamp")


def honest(repo):
    repo.release("timestamp")


EXPECT = {
    "says": "timestamp metadata expired",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
}
