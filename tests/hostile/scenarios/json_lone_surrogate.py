"""A name in a timestamp is half of a pair of surrogates, which no UTF-8 can say."""

from texts import MARKER, insert


def attack(repo):
    repo.edit_bytes("timestamp", insert(rf'"{MARKER}\udb40": 1'))
    repo.release("timestamp")


def honest(repo):
    repo.edit("timestamp", lambda signed: signed.update({"\U000e0041": "\U0001f600"}))
    repo.release("timestamp")


EXPECT = {
    "says": "timestamp metadata cannot be read: it is no JSON",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
}
