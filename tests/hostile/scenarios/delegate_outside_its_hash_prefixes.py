"""A delegated role lists a target whose name's hash begins otherwise than it was given."""

import hashlib

HASH = hashlib.sha256(b"app.bin").hexdigest()


def list_app(repo, prefixes):
    repo.delegate("products", prefixes=prefixes)
    repo.add_target("app.bin", b"app", role="products")
    repo.release()


def attack(repo):
    list_app(repo, [HASH[1:3], HASH[:3] + ("1" if HASH[3] == "0" else "0")])


def honest(repo):
    list_app(repo, ["0f0f0f", HASH[:3]])


TARGET = "app.bin"
EXPECT = {
    "says": "the repository does not list it",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2, "products": 1},
    "unasked": "products",
}
