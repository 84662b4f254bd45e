"""A chain of thirty roots ends with one that has expired; forty are followed to the keys that the last one names."""

from repository import YESTERDAY, new_key


def attack(repo):
    for _ in range(29):
        repo.release_root()
    repo.root.expires = YESTERDAY
    repo.release_root()


def honest(repo):
    for _ in range(39):
        repo.release_root()
    repo.set_keys("timestamp", [new_key()])
    repo.release_root()
    repo.release("timestamp")


EXPECT = {
    "says": "root metadata expired",
    "stored": {"root": 31, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 41, "timestamp": 2, "snapshot": 1, "targets": 1},
}
