"""A page that asks to log in comes in the place of every file."""

from server import whole

PAGE = whole(b"<!DOCTYPE html><title>Welcome</title>", headers={"Content-Type": "text/html"})


def attack(repo):
    repo.release()
    for path in ("metadata/2.root.json", *repo.site.files):
        repo.fault_at(path, PAGE)


def honest(repo):
    repo.release()


EXPECT = {
    "says": "root metadata cannot be read",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2},
}
