"""Mix and match: a new snapshot comes with older targets, whose hash it does not list."""


def prepare(repo):
    repo.lists_content = False


def attack(repo):
    old = repo.bytes("targets")
    repo.release()
    repo.fault("targets", old)


def honest(repo):
    repo.release()


EXPECT = {
    "says": "targets metadata has version 1 where 2 is due",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2},
}
