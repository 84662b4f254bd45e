"""The file 2.root.json says that it is version 3."""


def attack(repo):
    repo.edit("root", lambda signed: signed.update(version=3))
    repo.release_root()


def honest(repo):
    repo.release_root()
    repo.release_root()


EXPECT = {
    "says": "root metadata has version 3 where 2 is due",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 3, "timestamp": 1, "snapshot": 1, "targets": 1},
}
