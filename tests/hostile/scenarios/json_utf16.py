"""A timestamp is written in UTF-16."""


def attack(repo):
    repo.edit_bytes("timestamp", lambda data: data.decode().encode("utf-16"))
    repo.release("timestamp")


def honest(repo):
    repo.release("timestamp")


EXPECT = {
    "says": "timestamp metadata cannot be read",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
}
