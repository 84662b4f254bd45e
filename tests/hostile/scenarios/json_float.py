"""A timestamp holds a number with a fraction, for which canonical JSON has no form."""


def attack(repo):
    repo.edit("timestamp", lambda signed: signed.update(note=1.5))
    repo.release("timestamp")


def honest(repo):
    repo.edit("timestamp", lambda signed: signed.update(note=-15))
    repo.release("timestamp")


EXPECT = {
    "says": "timestamp metadata cannot be read",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
}
