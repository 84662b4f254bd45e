"""A snapshot is altered where no signature sees it, in its white space; the timestamp's hash does."""


def attack(repo):
    repo.release("snapshot")
    repo.fault("snapshot", repo.bytes("snapshot").replace(b"\n", b"\t"))


def honest(repo):
    repo.release("snapshot")


EXPECT = {
    "says": "snapshot metadata has not the hash",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1},
}
