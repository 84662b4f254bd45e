"""A timestamp never expires."""


def attack(repo):
    repo.edit("timestamp", lambda signed: signed.update(expires="never"))
    repo.release("timestamp")


def honest(repo):
    repo.edit("timestamp", lambda signed: signed.update(expires="9999-12-30T00:00:00Z"))
    repo.release("timestamp")


EXPECT = {
    "says": "timestamp metadata cannot be read",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
}
