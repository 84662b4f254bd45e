"""Of two hashes that the timestamp lists of the snapshot, the second is another file's."""

import hashlib


def list_sha512(repo, data):
    repo.edit(
        "timestamp",
        lambda signed: signed["meta"]["snapshot.json"]["hashes"].update(sha512=hashlib.sha512(data()).hexdigest()),
    )
    repo.release("snapshot")


def attack(repo):
    list_sha512(repo, lambda: b"another file")


def honest(repo):
    list_sha512(repo, lambda: repo.bytes("snapshot"))


EXPECT = {
    "says": "snapshot metadata has not the hash",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1},
}
