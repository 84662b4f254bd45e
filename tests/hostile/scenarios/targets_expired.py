"""New targets have expired already."""

from repository import YESTERDAY


def attack(repo):
    repo.targets.expires = YESTERDAY
    repo.release()


def honest(repo):
    repo.release()


EXPECT = {
    "says": "targets metadata expired",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2},
}
