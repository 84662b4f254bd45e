"""The type of a timestamp is its own name, and after it characters that nobody sees."""


def attack(repo):
    repo.edit("timestamp", lambda signed: signed.update(_type="timestamp\u200b\x00"))
    repo.release("timestamp")


def honest(repo):
    repo.release("timestamp")


EXPECT = {
    "says": "timestamp metadata cannot be read: its _type is not timestamp",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
}
