"""A snapshot lists the targets by a hash that is an object in which attackers write."""

from texts import DELETE, REORDERED, long


def attack(repo):
    hashes = {"sha256": {long(DELETE): REORDERED}}
    repo.edit("snapshot", lambda signed: signed["meta"]["targets.json"].update(hashes=hashes))
    repo.release("snapshot")


def honest(repo):
    repo.release("snapshot")


EXPECT = {
    "says": "snapshot metadata cannot be read: a value of another type than is due",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1},
}
