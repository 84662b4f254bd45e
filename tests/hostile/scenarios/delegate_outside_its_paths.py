"""A delegated role lists a target that it was not given."""


def list_other(repo, paths):
    repo.delegate("products", paths)
    repo.add_target("other/app.bin", b"app", role="products")
    repo.release()


def attack(repo):
    list_other(repo, ["products/*", "other/app.bi", "other/app.bin?", "[a-n]ther/*", "OTHER/*"])


def honest(repo):
    list_other(repo, ["products/*", "[o-z]ther/a??.bin"])


TARGET = "other/app.bin"
EXPECT = {
    "says": "the repository does not list it",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2, "products": 1},
    "unasked": "products",
}
