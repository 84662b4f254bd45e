"""A root lets timestamps be signed by nobody."""


def attack(repo):
    repo.edit("root", lambda signed: signed["roles"]["timestamp"].update(threshold=0))
    repo.release_root()
    repo.sign_with("timestamp")
    repo.release("timestamp")


def honest(repo):
    repo.release_root()
    repo.release("timestamp")


EXPECT = {
    "says": "the threshold of timestamp is 0",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 2, "timestamp": 2, "snapshot": 1, "targets": 1},
}
