"""A stolen key signs another timestamp of a version that the device has: it is discarded, without an error."""


def attack(repo):
    repo.edit("timestamp", lambda signed: signed.update(version=1))
    repo.release()


def honest(repo):
    repo.release()


EXPECT = {
    "exit": 0,
    "says": "",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2},
    "unasked": "snapshot|targets",
}
