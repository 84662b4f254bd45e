"""A timestamp's unknown field is NaN, which some readers take."""

from texts import insert


def attack(repo):
    repo.edit_bytes("timestamp", insert('"note": NaN'))
    repo.release("timestamp")


def honest(repo):
    repo.edit("timestamp", lambda signed: signed.update(note=None))
    repo.release("timestamp")


EXPECT = {
    "says": "timestamp metadata cannot be read: it is no JSON",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
}
