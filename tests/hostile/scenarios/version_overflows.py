"""A timestamp's version is larger than 64 bits hold, which must not wrap to a small one; over 32 bits is only large."""


def attack(repo):
    repo.edit("timestamp", lambda signed: signed.update(version=2**64 + 2))
    repo.release("timestamp")


def honest(repo):
    repo.timestamp.version = 2**32
    repo.release("timestamp")


EXPECT = {
    "says": "timestamp metadata cannot be read",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 4294967297, "snapshot": 1, "targets": 1},
}
