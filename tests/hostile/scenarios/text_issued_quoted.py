"""A timestamp was issued at a text of 10,000 characters; without the field it is one like any other."""

from texts import long


def attack(repo):
    repo.edit("timestamp", lambda signed: signed.update(issued=long("9", 10_000)))
    repo.release("timestamp")


def honest(repo):
    repo.edit("timestamp", lambda signed: signed.update(issued=None))
    repo.release("timestamp")


EXPECT = {
    "says": "timestamp metadata cannot be read: it does not have the form that is due",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
}
