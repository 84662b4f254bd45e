"""The threshold of a role is 1 to whoever keeps 32 bits of it."""


def attack(repo):
    repo.edit("root", lambda signed: signed["roles"]["timestamp"].update(threshold=2**32 + 1))
    repo.release_root()


def honest(repo):
    repo.edit("root", lambda signed: signed["roles"]["timestamp"].update(threshold=1))
    repo.release_root()


EXPECT = {
    "says": "root metadata cannot be read: a value that cannot be",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 2, "timestamp": 1, "snapshot": 1, "targets": 1},
}
