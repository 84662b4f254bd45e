"""A delegated role may be signed by nobody."""


def delegate(repo):
    repo.delegate("products", ["products/*"])
    repo.add_target("products/app.bin", b"app", role="products")
    repo.release()


def attack(repo):
    repo.edit("targets", lambda signed: signed["delegations"]["roles"][0].update(threshold=0))
    repo.sign_with("products")
    delegate(repo)


def honest(repo):
    delegate(repo)


TARGET = "products/app.bin"
EXPECT = {
    "says": "the threshold of delegation 1 is 0",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2, "products": 1},
}
