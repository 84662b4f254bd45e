"""A delegated role never ends."""

from server import endless


def prepare(repo):
    repo.delegate("products", ["products/*"])
    repo.add_target("products/app.bin", b"app", role="products")


def attack(repo):
    repo.fault("products", endless(repo.bytes("products")))


def honest(repo):
    pass


TARGET = "products/app.bin"
TIMEOUT = 10
EXPECT = {
    "says": 'delegated role "products" metadata has [0-9]+ bytes where [0-9]{3,4} are allowed',
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1, "products": 1},
}
