"""The timestamp lists the snapshot with a hash that nobody knows; the server alters the snapshot."""

import hashlib


def list_hash(repo, algorithm):
    repo.edit(
        "timestamp",
        lambda signed: signed["meta"]["snapshot.json"].update(
            hashes={algorithm: hashlib.sha512(repo.bytes("snapshot")).hexdigest()}
        ),
    )
    repo.release("snapshot")


def attack(repo):
    list_hash(repo, "x-hash")
    repo.fault("snapshot", repo.bytes("snapshot").replace(b"\n", b"\t"))


def honest(repo):
    list_hash(repo, "sha512")


EXPECT = {
    "says": "snapshot metadata has not the hash",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1},
}
