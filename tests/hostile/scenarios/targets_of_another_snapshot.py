"""Mix and match: the targets are of the listed version, and of a snapshot that was never released."""


def attack(repo):
    repo.add_target("other.txt", b"other")
    repo.release()
    draft = repo.bytes("targets")
    del repo.targets.targets["other.txt"]
    repo.targets.version = 1
    repo.release()
    repo.fault("targets", draft)


def honest(repo):
    repo.release()


EXPECT = {
    "says": "targets metadata has ([0-9]+ bytes where|not the hash)",
    "stored": {"root": 1, "timestamp": 3, "snapshot": 3, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2},
}
