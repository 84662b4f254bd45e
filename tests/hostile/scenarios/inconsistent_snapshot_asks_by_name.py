"""Without consistent snapshots, the new snapshot is offered only under the name that has a version."""


def prepare(repo):
    repo.root.consistent_snapshot = False
    repo.lists_content = False


def attack(repo):
    old = repo.bytes("snapshot")
    repo.release("snapshot")
    repo.site.files["metadata/2.snapshot.json"] = repo.bytes("snapshot")
    repo.fault("snapshot", old)


def honest(repo):
    repo.release()


EXPECT = {
    "says": "snapshot metadata has version 1 where 2 is due",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2},
    "unasked": r"[0-9]\.snapshot",
}
