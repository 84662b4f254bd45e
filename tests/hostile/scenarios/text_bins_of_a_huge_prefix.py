"""The targets delegate to bins whose prefix is 100,000 DEL characters."""

from texts import DELETE, long


def delegate(repo, prefix):
    bins = {"keyids": [], "threshold": 1, "bit_length": 8, "name_prefix": prefix}
    repo.edit("targets", lambda signed: signed.update(delegations={"keys": {}, "succinct_roles": bins}))


def attack(repo):
    delegate(repo, long(DELETE))
    repo.release("targets")


def honest(repo):
    delegate(repo, DELETE * 50)
    repo.release("targets")


EXPECT = {
    "says": "targets metadata cannot be read: the delegation to bins is to a role whose file name has 300011 bytes",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2},
}
