"""A snapshot expires at an object of names that reorder."""

from texts import REORDERED, TERMINAL, long


def attack(repo):
    repo.edit("snapshot", lambda signed: signed.update(expires={REORDERED: {TERMINAL: long("e")}}))
    repo.release("snapshot")


def honest(repo):
    repo.release("snapshot")


EXPECT = {
    "says": "snapshot metadata cannot be read: a value of another type than is due",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1},
}
