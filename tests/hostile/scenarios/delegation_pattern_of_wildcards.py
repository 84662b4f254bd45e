"""The pattern of a delegation has so many wildcards that trying each of their lengths would take for ever."""


def delegate(repo, pattern):
    repo.delegate("products", [pattern])
    repo.add_target(TARGET, b"app", role="products")
    repo.release()


def attack(repo):
    delegate(repo, "*a" * 90 + "b")


def honest(repo):
    delegate(repo, "*a" * 90 + "*")


TARGET = "a" * 180
EXPECT = {
    "says": "the repository does not list it",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2, "products": 1},
}
