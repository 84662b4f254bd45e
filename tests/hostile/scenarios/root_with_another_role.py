"""The key of the role mirrors, which root may have as well, signs a timestamp."""

from repository import new_key


def add_mirrors(repo):
    signer = new_key()
    keyid = signer.public_key.keyid
    repo.edit("root", lambda signed: signed["keys"].update({keyid: signer.public_key.to_dict()}))
    repo.edit("root", lambda signed: signed["roles"].update(mirrors={"keyids": [keyid], "threshold": 1}))
    repo.release_root()
    return signer


def attack(repo):
    repo.sign_with("timestamp", add_mirrors(repo))
    repo.release("timestamp")


def honest(repo):
    add_mirrors(repo)
    repo.release("timestamp")


EXPECT = {
    "says": "timestamp metadata has 0 of the 1 valid signatures",
    "stored": {"root": 2, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 2, "timestamp": 2, "snapshot": 1, "targets": 1},
}
