"""A delegated role has expired."""

from repository import YESTERDAY


def prepare(repo):
    repo.delegate("products", ["products/*"])
    repo.add_target("products/app.bin", b"app", role="products")


def attack(repo):
    repo.delegated["products"].expires = YESTERDAY
    repo.release("products")


def honest(repo):
    repo.release("products")


TARGET = "products/app.bin"
EXPECT = {
    "says": 'delegated role "products" metadata expired',
    "stored": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1, "products": 2},
}
