"""The server serves the file of a later role, and the earlier role's own delegate lists another."""


def attack(repo):
    honest(repo)
    repo.fault_at(repo.target_path("products/app.bin", "below"), b"bad")


def honest(repo):
    repo.delegate("first", ["products/*"])
    repo.delegate("below", ["products/*"], parent="first")
    repo.delegate("second", ["products/*"])
    repo.add_target("products/app.bin", b"app", role="below")
    repo.add_target("products/app.bin", b"bad", role="second", genuine=False)
    repo.release()


TARGET = "products/app.bin"
EXPECT = {
    "says": 'target "products/app.bin" has not the hash',
    "stored": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2, "first": 1, "below": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2, "first": 1, "below": 1},
    "unasked": "second",
}
