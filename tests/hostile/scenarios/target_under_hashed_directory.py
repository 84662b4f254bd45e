"""With consistent snapshots the hash goes before the file name; here it is offered only before the directory."""

import hashlib

CONTENT = b"firmware"


def prepare(repo):
    repo.add_target("dir/deep/app.bin", CONTENT)


def attack(repo):
    path = repo.target_path("dir/deep/app.bin")
    for other in ("{}.dir/deep/app.bin", "dir/{}.deep/app.bin", "{}/dir/deep/app.bin", "dir/deep/app.bin"):
        repo.site.files[f"targets/{other.format(hashlib.sha256(CONTENT).hexdigest())}"] = CONTENT
    del repo.site.files[path]


def honest(repo):
    pass


TARGET = "dir/deep/app.bin"
EXPECT = {
    "says": "app.bin is not there",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "unasked": "targets/(?!dir/deep/[0-9a-f]{64}.app.bin)",
}
