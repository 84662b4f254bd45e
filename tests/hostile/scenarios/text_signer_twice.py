"""The id of a signer is 2,000 characters that reorder, and is among the signatures twice."""

from texts import REORDERED, long

STRANGE = {"keyid": long("\u202e", 400) + REORDERED, "sig": ""}


def attack(repo):
    repo.edit_envelope("timestamp", lambda file: file["signatures"].extend([STRANGE, STRANGE]))
    repo.release("timestamp")


def honest(repo):
    repo.edit_envelope("timestamp", lambda file: file["signatures"].append(STRANGE))
    repo.release("timestamp")


EXPECT = {
    "says": "timestamp metadata cannot be read: signature 3 is by a key that is among the signatures twice",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
}
