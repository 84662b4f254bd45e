"""Two roles delegate to each other, and neither lists the target."""


def delegate_round(repo):
    repo.delegate("a", ["products/*"])
    repo.delegate("b", ["products/*"], parent="a")
    repo.delegate("a", ["products/*"], parent="b")
    repo.delegate("b", ["products/*"], parent="b")
    repo.delegate("c", ["products/*"], parent="b")


def attack(repo):
    delegate_round(repo)
    repo.release()


def honest(repo):
    delegate_round(repo)
    repo.add_target("products/app.bin", b"app", role="c")
    repo.release()


TARGET = "products/app.bin"
EXPECT = {
    "says": "the repository does not list it",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2, "a": 1, "b": 1, "c": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2, "a": 1, "b": 1, "c": 1},
}
