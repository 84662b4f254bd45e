"""Objects lie in each other 200 deep, each under a name of a thousand characters."""

from texts import REORDERED, long


def nested(depth):
    note = {}
    for _ in range(depth):
        note = {long("\x7f", 1_000) + REORDERED: note}
    return note


def attack(repo):
    repo.edit("targets", lambda signed: signed.update(nested(200)))
    repo.release("targets")


def honest(repo):
    repo.edit("targets", lambda signed: signed.update(nested(100)))
    repo.release("targets")


EXPECT = {
    "says": "targets metadata cannot be read: it is no JSON at line [0-9]+, column [0-9]+",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2},
}
