"""The name of a key, which is for people, is an object full of control characters."""

from texts import REORDERED, TERMINAL


def name_keys(signed, name):
    for key in signed["keys"].values():
        key["x-vigil-name"] = name


def attack(repo):
    repo.edit("root", lambda signed: name_keys(signed, {TERMINAL: [REORDERED]}))
    repo.release_root()


def honest(repo):
    repo.edit("root", lambda signed: name_keys(signed, TERMINAL + REORDERED))
    repo.release_root()


EXPECT = {
    "says": "root metadata cannot be read: a value of another type than is due",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 2, "timestamp": 1, "snapshot": 1, "targets": 1},
}
