"""A root names a role that would clear the screen, and gives it a text for a threshold."""

from texts import REORDERED, TERMINAL, long


def attack(repo):
    role = {"keyids": [REORDERED], "threshold": long("1")}
    repo.edit("root", lambda signed: signed["roles"].update({TERMINAL: role}))
    repo.release_root()


def honest(repo):
    role = {"keyids": [REORDERED], "threshold": 1}
    repo.edit("root", lambda signed: signed["roles"].update({TERMINAL: role}))
    repo.release_root()


EXPECT = {
    "says": "root metadata cannot be read: a value of another type than is due",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 2, "timestamp": 1, "snapshot": 1, "targets": 1},
}
