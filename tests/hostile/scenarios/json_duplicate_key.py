"""A timestamp states its version twice, so that readers disagree which was signed."""


def attack(repo):
    repo.edit_bytes("timestamp", lambda data: data.replace(b'"_type"', b'"version": 9, "_type"'))
    repo.release("timestamp")


def honest(repo):
    repo.release("timestamp")


EXPECT = {
    "says": "timestamp metadata cannot be read: a key is there twice",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
}
