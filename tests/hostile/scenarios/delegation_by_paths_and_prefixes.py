"""A delegation has both paths and path hash prefixes, so that clients may disagree what was given."""


def delegate(repo):
    repo.delegate("products", ["products/*"])
    repo.add_target("products/app.bin", b"app", role="products")
    repo.release()


def attack(repo):
    repo.edit("targets", lambda signed: signed["delegations"]["roles"][0].update(path_hash_prefixes=["00"]))
    delegate(repo)


def honest(repo):
    delegate(repo)


TARGET = "products/app.bin"
EXPECT = {
    "says": "not either paths or path_hash_prefixes",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2, "products": 1},
}
