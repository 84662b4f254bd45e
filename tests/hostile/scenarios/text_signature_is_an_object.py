"""A signature is an object whose names are an attacker's."""

from texts import REORDERED, TERMINAL, long


def attack(repo):
    strange = {"keyid": REORDERED, "sig": {long("s"): TERMINAL}}
    repo.edit_envelope("targets", lambda file: file["signatures"].append(strange))
    repo.release("targets")


def honest(repo):
    strange = {"keyid": REORDERED, "sig": long("s"), TERMINAL: TERMINAL}
    repo.edit_envelope("targets", lambda file: file["signatures"].append(strange))
    repo.release("targets")


EXPECT = {
    "says": "targets metadata cannot be read: a value of another type than is due",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2},
}
