"""A timestamp's version is written 02: octal to one reader, nothing to another."""


def attack(repo):
    repo.edit_bytes("timestamp", lambda data: data.replace(b'"version": 2', b'"version": 02'))
    repo.release("timestamp")


def honest(repo):
    repo.release("timestamp")


EXPECT = {
    "says": "timestamp metadata cannot be read: it is no JSON",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
}
