"""The server keeps serving a timestamp that the device has, and that has expired since."""

from repository import SOON, YESTERDAY


def prepare(repo):
    repo.timestamp.expires = YESTERDAY


def store(repo):
    return {role: repo.bytes(role) for role in ("timestamp", "snapshot", "targets")}


def attack(repo):
    pass


def honest(repo):
    repo.timestamp.expires = SOON
    repo.release("timestamp")


NEW_DEVICE = True
EXPECT = {
    "says": "timestamp metadata expired",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
}
