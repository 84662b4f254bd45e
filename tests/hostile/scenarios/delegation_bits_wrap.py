"""The targets delegate to bins by 264 bits, which are 8 to whoever keeps 8 bits of the number."""


def delegate(repo, bits):
    bins = {"keyids": [], "threshold": 1, "bit_length": bits, "name_prefix": "bin"}
    repo.edit("targets", lambda signed: signed.update(delegations={"keys": {}, "succinct_roles": bins}))


def attack(repo):
    delegate(repo, 264)
    repo.release("targets")


def honest(repo):
    delegate(repo, 8)
    repo.release("targets")


EXPECT = {
    "says": "targets metadata cannot be read: (a value that cannot be|it does not have the form that is due)",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2},
}
