"""A delegated role is altered where no signature sees it; the snapshot's hash does."""


def prepare(repo):
    repo.delegate("products", ["products/*"])
    repo.add_target("products/app.bin", b"app", role="products")


def attack(repo):
    repo.fault("products", repo.bytes("products").replace(b"\n", b"\t"))


def honest(repo):
    pass


TARGET = "products/app.bin"
EXPECT = {
    "says": 'delegated role "products" metadata has not the hash',
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1, "products": 1},
}
