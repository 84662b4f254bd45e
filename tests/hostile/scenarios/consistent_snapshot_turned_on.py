"""A new root turns consistent snapshots on, and the server serves the new files only under their old names."""


def prepare(repo):
    repo.root.consistent_snapshot = False
    repo.begin()
    repo.root.consistent_snapshot = True
    repo.release_root()


def attack(repo):
    repo.release()
    for role in ("snapshot", "targets"):
        repo.site.files[f"metadata/{role}.json"] = repo.bytes(role)
        del repo.site.files[repo.path(role)]


def honest(repo):
    repo.release()


NEW_DEVICE = True
EXPECT = {
    "says": "snapshot metadata is not there",
    "stored": {"root": 2, "timestamp": 2},
    "twin": {"root": 2, "timestamp": 2, "snapshot": 2, "targets": 2},
}
