"""The snapshot does not list a delegated role, which nothing would protect from going back."""


def delegate(repo):
    repo.delegate("products", ["products/*"])
    repo.add_target("products/app.bin", b"app", role="products")
    repo.release()


def attack(repo):
    repo.edit("snapshot", lambda signed: signed["meta"].pop("products.json"))
    delegate(repo)


def honest(repo):
    delegate(repo)


TARGET = "products/app.bin"
EXPECT = {
    "says": "the snapshot does not list it",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2, "products": 1},
    "unasked": "products",
}
