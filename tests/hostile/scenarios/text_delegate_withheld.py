"""A delegated role that is withheld is called so that its name would clear the screen: it is told without that."""

# The targets' keys have vouched for the name, so that it may be told: without the marker, and cleaned.
NAME = "\x1b[2J\u202eproducts\u2028" + "\x7f" * 20


def prepare(repo):
    repo.delegate(NAME, ["*"])
    repo.add_target("app.bin", b"app", role=NAME)


def attack(repo):
    repo.site.files.pop(repo.path(NAME))


def honest(repo):
    pass


TARGET = "app.bin"
EXPECT = {
    "says": r'the delegated role "\ufffd\[2J\ufffdproducts\ufffd" metadata is not there',
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1, NAME: 1},
}
