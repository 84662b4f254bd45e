"""One role is delegated to twice, the second time with the attacker's key."""

from repository import new_key


def delegate(repo):
    repo.delegate("products", ["products/*"])
    repo.add_target("products/app.bin", b"app", role="products")
    repo.release()


def attack(repo):
    key = new_key().public_key
    repo.edit("targets", lambda signed: signed["delegations"]["keys"].update({key.keyid: key.to_dict()}))
    second = {"name": "products", "keyids": [key.keyid], "threshold": 1, "terminating": False, "paths": ["*"]}
    repo.edit("targets", lambda signed: signed["delegations"]["roles"].append(second))
    delegate(repo)


def honest(repo):
    delegate(repo)


TARGET = "products/app.bin"
EXPECT = {
    "says": "delegation 2 is to a role that is delegated to twice",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2, "products": 1},
}
