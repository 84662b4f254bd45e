"""A target is called by 100,000 DEL characters, with a text for a length; with a number nobody asks for it."""

from texts import DELETE, REORDERED, TERMINAL, long


def list_target(signed, length):
    target = {"length": length, "hashes": {TERMINAL: REORDERED}, "custom": {TERMINAL: REORDERED}}
    signed["targets"][long(DELETE)] = target


def attack(repo):
    repo.edit("targets", lambda signed: list_target(signed, long("9")))
    repo.release("targets")


def honest(repo):
    repo.edit("targets", lambda signed: list_target(signed, 1))
    repo.release("targets")


EXPECT = {
    "says": "targets metadata cannot be read: a value of another type than is due",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2},
}
