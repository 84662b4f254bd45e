"""The server has a file that nobody signed."""


def attack(repo):
    repo.site.files["targets/other.bin"] = b"other"


def honest(repo):
    repo.add_target("other.bin", b"other")
    repo.release()


TARGET = "other.bin"
EXPECT = {
    "says": "the repository does not list it",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2},
    "unasked": "targets/",
}
