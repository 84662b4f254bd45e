"""A snapshot has a name of 100,000 DEL characters twice, for the error to repeat."""

from texts import DELETE, insert, long


def attack(repo):
    name = long(DELETE, 100_000)
    repo.edit_bytes("snapshot", insert(f'"{name}": 1, "{name}": 2'))
    repo.release("snapshot")


def honest(repo):
    repo.edit("snapshot", lambda signed: signed.update({long(DELETE): 1}))
    repo.release("snapshot")


EXPECT = {
    "says": "snapshot metadata cannot be read: a key is there twice",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1},
}
