"""A delegated role's key is replaced in the delegation, and the old key goes on signing."""

from repository import new_key


def prepare(repo):
    repo.delegate("products", ["products/*"])
    repo.add_target("products/app.bin", b"app", role="products")


def attack(repo):
    repo.sign_with("products", *repo.signers["products"])
    honest(repo)


def honest(repo):
    repo.delegate("products", ["products/*"], signers=[new_key()])
    repo.release()


TARGET = "products/app.bin"
EXPECT = {
    "says": 'delegated role "products" metadata has 0 of the 1 valid signatures',
    "stored": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2, "products": 2},
}
