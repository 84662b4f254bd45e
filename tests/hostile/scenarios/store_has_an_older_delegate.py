"""The device has a delegated role of an older snapshot, and the server hides the new one."""

from server import failing


def prepare(repo):
    repo.delegate("products", ["products/*"])
    repo.add_target("products/app.bin", b"app", role="products")
    repo.begin()
    repo.old = repo.bytes("products")


def store(repo):
    return {"products": repo.old}


def attack(repo):
    repo.release("products")
    repo.fault("products", failing(404))


def honest(repo):
    repo.release("products")


TARGET = "products/app.bin"
EXPECT = {
    "says": 'delegated role "products" metadata is not there',
    "stored": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1, "products": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1, "products": 2},
}
