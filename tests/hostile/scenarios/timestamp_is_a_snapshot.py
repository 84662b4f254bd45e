"""The key of the timestamp also signs the snapshot, and the snapshot is served as the timestamp."""


def prepare(repo):
    repo.set_keys("snapshot", repo.signers["timestamp"])


def attack(repo):
    repo.release()
    repo.fault("timestamp", repo.bytes("snapshot"))


def honest(repo):
    repo.release()


EXPECT = {
    "says": "timestamp metadata cannot be read",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2},
}
