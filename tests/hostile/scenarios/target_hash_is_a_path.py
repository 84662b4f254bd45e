"""A target's hash is a path, which would lead the client elsewhere on the server."""


def attack(repo):
    repo.edit("targets", lambda signed: signed["targets"]["greeting.txt"].update(hashes={"sha256": "../../../x"}))
    repo.release()


def honest(repo):
    repo.release()


TARGET = "greeting.txt"
EXPECT = {
    "says": "target greeting.txt",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2},
    "unasked": r"targets/|\.\.",
}
