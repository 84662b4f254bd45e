"""The version of the targets is a text of 100,000 characters."""

from texts import long


def attack(repo):
    repo.edit("targets", lambda signed: signed.update(version=long("\x1b[31m", 20_000)))
    repo.release("targets")


def honest(repo):
    repo.release("targets")


EXPECT = {
    "says": "targets metadata cannot be read: a value of another type than is due",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2},
}
