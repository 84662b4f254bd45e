"""A delegation names a key that is not among its own, only among root's."""


def delegate(repo):
    repo.delegate("products", ["products/*"])
    repo.add_target("products/app.bin", b"app", role="products")
    repo.release()


def attack(repo):
    signer = repo.signers["timestamp"][0]
    repo.edit("targets", lambda signed: signed["delegations"]["roles"][0].update(keyids=[signer.public_key.keyid]))
    repo.sign_with("products", signer)
    delegate(repo)


def honest(repo):
    delegate(repo)


TARGET = "products/app.bin"
EXPECT = {
    "says": 'delegated role "products" metadata has 0 of the 1 valid signatures',
    "stored": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2, "products": 1},
}
