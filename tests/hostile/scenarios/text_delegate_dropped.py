"""A snapshot drops a delegated role whose name would reorder what is said of it: it is told without that."""

NAME = "\u2066\u202eproducts\x9b2J\u2029"


def prepare(repo):
    repo.delegate(NAME, ["products/*"])


def attack(repo):
    repo.edit("snapshot", lambda signed: signed["meta"].pop(f"{NAME}.json"))
    repo.release("snapshot")


def honest(repo):
    repo.release("snapshot")


EXPECT = {
    "says": "snapshot metadata goes back: \ufffdproducts\ufffd2J\ufffd.json was at version 1 and is offered at 0",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1},
}
