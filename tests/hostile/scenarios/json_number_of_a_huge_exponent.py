"""An unknown field of a timestamp is a number with 10,000 digits in its exponent."""

from texts import insert


def attack(repo):
    repo.edit_bytes("timestamp", insert('"note": 1e' + "9" * 10_000))
    repo.release("timestamp")


def honest(repo):
    repo.edit("timestamp", lambda signed: signed.update(note="1e" + "9" * 10_000))
    repo.release("timestamp")


EXPECT = {
    "says": "timestamp metadata cannot be read",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
}
