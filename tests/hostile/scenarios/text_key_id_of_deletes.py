"""A key in a root has an id of 100,000 DEL characters and a number for its type; any other key may be called so."""

from texts import DELETE, REORDERED, TERMINAL, long

STRANGE = {"keytype": TERMINAL, "scheme": REORDERED, "keyval": {TERMINAL: REORDERED}, "x-vigil-name": TERMINAL}


def attack(repo):
    repo.edit("root", lambda signed: signed["keys"].update({long(DELETE, 50_000): STRANGE | {"keytype": 1}}))
    repo.release_root()


def honest(repo):
    repo.edit("root", lambda signed: signed["keys"].update({long(DELETE, 50_000): STRANGE}))
    repo.release_root()


EXPECT = {
    "says": "root metadata cannot be read: a value of another type than is due",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 2, "timestamp": 1, "snapshot": 1, "targets": 1},
}
