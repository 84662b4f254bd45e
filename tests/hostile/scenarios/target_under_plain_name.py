"""Without consistent snapshots the target's name stands as it is; here it is offered only with its hash."""

import hashlib


def prepare(repo):
    repo.root.consistent_snapshot = False
    repo.add_target("dir/app.bin", b"firmware")


def attack(repo):
    del repo.site.files["targets/dir/app.bin"]
    repo.site.files[f"targets/dir/{hashlib.sha256(b'firmware').hexdigest()}.app.bin"] = b"firmware"


def honest(repo):
    pass


TARGET = "dir/app.bin"
EXPECT = {
    "says": "app.bin is not there",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "unasked": "targets/(?!dir/app.bin)",
}
