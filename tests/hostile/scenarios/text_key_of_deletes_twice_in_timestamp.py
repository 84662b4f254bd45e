"""A timestamp has a name of 5,000 DEL characters twice, for the error to repeat."""

from texts import DELETE, insert, long


def attack(repo):
    name = long(DELETE, 5_000)
    repo.edit_bytes("timestamp", insert(f'"{name}": 1, "{name}": 2'))
    repo.release("timestamp")


def honest(repo):
    repo.edit("timestamp", lambda signed: signed.update({long(DELETE, 1_000): 1}))
    repo.release("timestamp")


EXPECT = {
    "says": "timestamp metadata cannot be read: a key is there twice",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
}
