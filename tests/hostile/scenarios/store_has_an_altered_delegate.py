"""The device's copy of a delegated role was altered on its disk, and the server offers no other."""

from server import failing


def prepare(repo):
    repo.delegate("products", ["products/*"])
    repo.add_target("products/app.bin", b"app", role="products")


def store(repo):
    return {"products": repo.bytes("products").replace(b'"length": 3', b'"length": 4')}


def attack(repo):
    repo.fault("products", failing(404))


def honest(repo):
    pass


TARGET = "products/app.bin"
EXPECT = {
    "says": 'delegated role "products" metadata is not there',
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1, "products": 1},
    "twin": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1, "products": 1},
}
