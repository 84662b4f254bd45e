"""A role lists a target that an earlier role gave away for good, which ends the search for all roles."""


def delegate_thrice(repo, terminating):
    repo.delegate("first", ["products/*"])
    repo.delegate("below", ["products/*"], parent="first", terminating=terminating)
    repo.delegate("second", ["products/*"])
    repo.add_target("products/app.bin", b"app", role="second")
    repo.release()


def attack(repo):
    delegate_thrice(repo, terminating=True)


def honest(repo):
    delegate_thrice(repo, terminating=False)


TARGET = "products/app.bin"
EXPECT = {
    "says": "the repository does not list it",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2, "first": 1, "below": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2, "first": 1, "below": 1, "second": 1},
    "unasked": "second",
}
