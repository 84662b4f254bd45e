"""The root's keys sign a root that says it is a timestamp."""


def attack(repo):
    repo.edit("root", lambda signed: signed.update(_type="timestamp"))
    repo.release_root()


def honest(repo):
    repo.release_root()


EXPECT = {
    "says": "root metadata cannot be read: its _type",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 2, "timestamp": 1, "snapshot": 1, "targets": 1},
}
