"""A delegated role is signed with the key of another one, which the same role delegates to."""


def delegate_both(repo):
    repo.delegate("products", ["products/*"])
    repo.delegate("others", ["others/*"])
    repo.add_target("products/app.bin", b"app", role="products")


def attack(repo):
    delegate_both(repo)
    repo.sign_with("products", *repo.signers["others"])
    repo.release()


def honest(repo):
    delegate_both(repo)
    repo.release()


TARGET = "products/app.bin"
EXPECT = {
    "says": 'delegated role "products" metadata has 0 of the 1 valid signatures',
    "stored": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2, "products": 1},
}
