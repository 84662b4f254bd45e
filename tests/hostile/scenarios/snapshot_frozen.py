"""The timestamp is signed anew, and lists a snapshot that the device has and that has expired since."""

from repository import SOON, YESTERDAY


def prepare(repo):
    repo.snapshot.expires = YESTERDAY


def store(repo):
    return {role: repo.bytes(role) for role in ("timestamp", "snapshot", "targets")}


def attack(repo):
    repo.release("timestamp")


def honest(repo):
    repo.snapshot.expires = SOON
    repo.release("snapshot")


NEW_DEVICE = True
EXPECT = {
    "says": "snapshot metadata expired",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1},
}
