"""The root's keys sign a root that is larger than any root should be."""


def attack(repo):
    repo.edit("root", lambda signed: signed.update(note="x" * 600_000))
    repo.release_root()


def honest(repo):
    repo.edit("root", lambda signed: signed.update(note="x" * 300_000))
    repo.release_root()


EXPECT = {
    "says": "root metadata has 524289 bytes where 524288 are allowed",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 2, "timestamp": 1, "snapshot": 1, "targets": 1},
}
