"""A timestamp follows a version of the specification that would clear the screen."""

from texts import REORDERED, TERMINAL


def attack(repo):
    repo.edit("timestamp", lambda signed: signed.update(spec_version=TERMINAL + REORDERED))
    repo.release("timestamp")


def honest(repo):
    repo.edit("timestamp", lambda signed: signed.update(spec_version="1.0." + TERMINAL))
    repo.release("timestamp")


EXPECT = {
    "says": "timestamp metadata cannot be read: it follows another version of the specification",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
}
