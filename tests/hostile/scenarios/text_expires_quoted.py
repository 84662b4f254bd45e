"""A timestamp expires at a text that would clear the screen, for the date's error to repeat."""

from texts import REORDERED, TERMINAL


def attack(repo):
    repo.edit("timestamp", lambda signed: signed.update(expires="2099-01-01T00:00:00Z" + TERMINAL + REORDERED))
    repo.release("timestamp")


def honest(repo):
    repo.release("timestamp")


EXPECT = {
    "says": "timestamp metadata cannot be read: it does not have the form that is due",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
}
