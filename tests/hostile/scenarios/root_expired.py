"""The last root of the chain has expired: it is kept, and trusted for nothing; one in the middle may have expired."""

from repository import SOON, YESTERDAY


def attack(repo):
    repo.root.expires = YESTERDAY
    repo.release_root()
    repo.release("timestamp")


def honest(repo):
    repo.root.expires = YESTERDAY
    repo.release_root()
    repo.root.expires = SOON
    repo.release_root()


EXPECT = {
    "says": "root metadata expired",
    "stored": {"root": 2, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 3, "timestamp": 1, "snapshot": 1, "targets": 1},
    "unasked": "snapshot",
}
