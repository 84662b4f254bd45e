"""A signature is altered; one that is no hex at all, of a key that nobody named, spoils nothing."""

from repository import broken


def attack(repo):
    repo.edit_envelope("timestamp", broken)
    repo.release("timestamp")


def honest(repo):
    repo.edit_envelope("timestamp", lambda file: file["signatures"].append({"keyid": "stranger", "sig": "no hex"}))
    repo.release("timestamp")


EXPECT = {
    "says": "timestamp metadata has 0 of the 1 valid signatures",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
}
