"""A timestamp, rightly signed, is larger than any timestamp should be."""


def attack(repo):
    repo.edit("timestamp", lambda signed: signed.update(note="x" * 20_000))
    repo.release("timestamp")


def honest(repo):
    repo.edit("timestamp", lambda signed: signed.update(note="x" * 10_000))
    repo.release("timestamp")


EXPECT = {
    "says": "timestamp metadata has 16385 bytes where 16384 are allowed",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
}
