"""A root has a name of 100,000 DEL characters twice, for the error to repeat."""

from texts import DELETE, insert, long


def attack(repo):
    name = long(DELETE, 100_000)
    repo.edit_bytes("root", insert(f'"{name}": 1, "{name}": 2'))
    repo.release_root()


def honest(repo):
    repo.edit("root", lambda signed: signed.update({long(DELETE, 50_000): 1}))
    repo.release_root()


EXPECT = {
    "says": "root metadata cannot be read: a key is there twice",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 2, "timestamp": 1, "snapshot": 1, "targets": 1},
}
