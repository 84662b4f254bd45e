"""The targets themselves are served as the metadata of a role with the same type, version and keys' holder."""


def prepare(repo):
    repo.lists_content = False
    repo.delegate("products", ["products/*"])
    repo.add_target("products/app.bin", b"app", role="products")


def attack(repo):
    repo.fault("products", repo.bytes("targets"))


def honest(repo):
    pass


TARGET = "products/app.bin"
EXPECT = {
    "says": 'delegated role "products" metadata has 0 of the 1 valid signatures',
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1, "products": 1},
}
