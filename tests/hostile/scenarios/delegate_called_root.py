"""A delegated role has the name of a top-level role, in whose place it would be stored."""


def delegate(repo, name):
    repo.delegate("r00t", ["*"])
    repo.add_target("app.bin", b"app", role="r00t")
    repo.edit("targets", lambda signed: signed["delegations"]["roles"][0].update(name=name))
    repo.release()


def attack(repo):
    delegate(repo, "root")


def honest(repo):
    delegate(repo, "r00t")


TARGET = "app.bin"
EXPECT = {
    "says": "targets metadata cannot be read: delegation 1 is to a role without a name of its own",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2, "r00t": 1},
}
