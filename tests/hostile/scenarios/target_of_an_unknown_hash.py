"""A target is listed with a hash that nobody knows, so that any file would do."""


def attack(repo):
    repo.edit("targets", lambda signed: signed["targets"]["greeting.txt"].update(hashes={"x-hash": "00"}))
    repo.release()
    repo.site.files["targets/00.greeting.txt"] = b"jello"


def honest(repo):
    repo.release()


TARGET = "greeting.txt"
EXPECT = {
    "says": "target greeting.txt",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2},
}
