"""A root names no keys for the timestamp."""


def attack(repo):
    repo.edit("root", lambda signed: signed["roles"].pop("timestamp"))
    repo.release_root()


def honest(repo):
    repo.release_root()


EXPECT = {
    "says": "root metadata cannot be read: it has no keys for timestamp",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 2, "timestamp": 1, "snapshot": 1, "targets": 1},
}
