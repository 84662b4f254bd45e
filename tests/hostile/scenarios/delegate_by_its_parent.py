"""A delegated role is signed with the key of the role that delegates to it."""


def attack(repo):
    repo.delegate("products", ["products/*"])
    repo.add_target("products/app.bin", b"app", role="products")
    repo.sign_with("products", *repo.signers["targets"])
    repo.release()


def honest(repo):
    repo.delegate("products", ["products/*"])
    repo.add_target("products/app.bin", b"app", role="products")
    repo.release()


TARGET = "products/app.bin"
EXPECT = {
    "says": 'delegated role "products" metadata has 0 of the 1 valid signatures',
    "stored": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2, "products": 1},
}
