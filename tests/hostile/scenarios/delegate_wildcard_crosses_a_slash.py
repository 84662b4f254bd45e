"""A delegated role lists a target deeper down than the wildcard of its path reaches."""


def list_deep(repo, paths):
    repo.delegate("products", paths)
    repo.add_target("products/deep/app.bin", b"app", role="products")
    repo.release()


def attack(repo):
    list_deep(repo, ["*", "products/*", "products?deep/app.bin", "**"])


def honest(repo):
    list_deep(repo, ["products/*/*"])


TARGET = "products/deep/app.bin"
EXPECT = {
    "says": "the repository does not list it",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2, "products": 1},
    "unasked": "products",
}
