"""A timestamp does not say when it expires."""


def attack(repo):
    repo.edit("timestamp", lambda signed: signed.pop("expires"))
    repo.release("timestamp")


def honest(repo):
    repo.release("timestamp")


EXPECT = {
    "says": "timestamp metadata cannot be read: a field is missing: expires at line",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
}
