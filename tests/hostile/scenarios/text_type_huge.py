"""The type of a snapshot is a text of 100,000 characters that reorder what is read."""

from texts import long


def attack(repo):
    repo.edit("snapshot", lambda signed: signed.update(_type=long("\u202e")))
    repo.release("snapshot")


def honest(repo):
    repo.release("snapshot")


EXPECT = {
    "says": "snapshot metadata cannot be read: its _type is not snapshot",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1},
}
