"""A target that was listed is listed no more, and the server still has it."""


def prepare(repo):
    repo.add_target("other.bin", b"other")


def attack(repo):
    del repo.targets.targets["other.bin"]
    repo.release()


def honest(repo):
    repo.release()


TARGET = "other.bin"
EXPECT = {
    "says": "the repository does not list it",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2},
    "unasked": "targets/",
}
