"""One of two keys that are needed signs a delegated role."""

from repository import new_key


def prepare(repo):
    repo.delegate("products", ["products/*"], signers=[new_key(), new_key()], threshold=2)
    repo.add_target("products/app.bin", b"app", role="products")


def attack(repo):
    repo.sign_with("products", repo.signers["products"][0])
    repo.release("products")


def honest(repo):
    repo.release("products")


TARGET = "products/app.bin"
EXPECT = {
    "says": 'delegated role "products" metadata has 1 of the 2 valid signatures',
    "stored": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1, "products": 2},
}
