"""With consistent snapshots, a snapshot is offered only under the name that has no version."""

from server import failing


def attack(repo):
    repo.release("snapshot")
    repo.site.files["metadata/snapshot.json"] = repo.bytes("snapshot")
    repo.fault("snapshot", failing(404))


def honest(repo):
    repo.release("snapshot")


EXPECT = {
    "says": "snapshot metadata is not there",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1},
    "unasked": "metadata/snapshot.json",
}
