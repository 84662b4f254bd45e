"""The server hides the role that comes first, so that the search goes on to one that is trusted less."""

from server import failing


def attack(repo):
    honest(repo)
    repo.fault("first", failing(404))


def honest(repo):
    repo.delegate("first", ["products/*"])
    repo.delegate("second", ["products/*"])
    repo.add_target("products/app.bin", b"app", role="first")
    repo.add_target("products/app.bin", b"bad", role="second", genuine=False)
    repo.release()


TARGET = "products/app.bin"
EXPECT = {
    "says": 'delegated role "first" metadata is not there',
    "stored": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2, "first": 1},
    "unasked": "second",
}
