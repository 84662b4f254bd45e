"""Two roles list a target, and the server serves the file of the one that comes later."""


def attack(repo):
    honest(repo)
    repo.fault_at(repo.target_path("products/app.bin", "first"), b"bad")


def honest(repo):
    repo.delegate("first", ["products/*"])
    repo.delegate("second", ["products/*"])
    repo.add_target("products/app.bin", b"app", role="first")
    repo.add_target("products/app.bin", b"bad", role="second", genuine=False)
    repo.release()


TARGET = "products/app.bin"
EXPECT = {
    "says": 'target "products/app.bin" has not the hash',
    "stored": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2, "first": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2, "first": 1},
    "unasked": "second",
}
