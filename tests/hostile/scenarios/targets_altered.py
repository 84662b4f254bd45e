"""The targets are altered where no signature sees it, in their white space; the snapshot's hash does."""


def attack(repo):
    repo.release()
    repo.fault("targets", repo.bytes("targets").replace(b"\n", b"\t"))


def honest(repo):
    repo.release()


EXPECT = {
    "says": "targets metadata has not the hash",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2},
}
