"""A root asks for fewer than no signatures of the timestamp."""


def attack(repo):
    repo.edit("root", lambda signed: signed["roles"]["timestamp"].update(threshold=-1))
    repo.release_root()
    repo.sign_with("timestamp")
    repo.release("timestamp")


def honest(repo):
    repo.release_root()
    repo.release("timestamp")


EXPECT = {
    "says": "root metadata cannot be read",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 2, "timestamp": 2, "snapshot": 1, "targets": 1},
}
