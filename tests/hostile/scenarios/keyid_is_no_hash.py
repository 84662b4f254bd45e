"""A key whose id is not its hash is used as any other, and another key must not sign under that id."""

from repository import new_key, signature


def rename(repo, signer):
    key = repo.signers["timestamp"][0].public_key
    keyid = "the key of the timestamp"
    repo.edit("root", lambda signed: signed["keys"].update({keyid: signed["keys"].pop(key.keyid)}))
    repo.edit("root", lambda signed: signed["roles"]["timestamp"].update(keyids=[keyid]))
    repo.release_root()
    repo.edit_envelope("timestamp", lambda file: file.update(signatures=[signature(file["signed"], signer, keyid)]))
    repo.release("timestamp")


def attack(repo):
    rename(repo, new_key())


def honest(repo):
    rename(repo, repo.signers["timestamp"][0])


EXPECT = {
    "says": "timestamp metadata has 0 of the 1 valid signatures",
    "stored": {"root": 2, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 2, "timestamp": 2, "snapshot": 1, "targets": 1},
}
