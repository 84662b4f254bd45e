"""A target's name leads out of the directory that targets are put into."""


def attack(repo):
    repo.add_target("../evil.txt", b"evil")
    repo.release()


def honest(repo):
    repo.add_target("a/..evil.txt", b"not evil")
    repo.release()


TARGET = "../evil.txt"
TWIN_TARGET = "a/..evil.txt"
EXPECT = {
    "says": "target ../evil.txt",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2},
    "unasked": r"targets/",
}
