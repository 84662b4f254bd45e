"""A role that was given one directory gives another one away."""


def give_away(repo, paths):
    repo.delegate("vendor", paths)
    repo.delegate("products", ["products/*"], parent="vendor")
    repo.add_target("products/app.bin", b"app", role="products")
    repo.release()


def attack(repo):
    give_away(repo, ["vendor/*"])


def honest(repo):
    give_away(repo, ["vendor/*", "products/*"])


TARGET = "products/app.bin"
EXPECT = {
    "says": "the repository does not list it",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2, "vendor": 1, "products": 1},
    "unasked": "vendor|products",
}
