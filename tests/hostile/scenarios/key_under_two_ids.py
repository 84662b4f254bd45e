"""One key has two ids in root, signs under both, and must count once."""

from repository import new_key, signature


def attack(repo):
    signer = repo.signers["timestamp"][0]
    keyids = [signer.public_key.keyid, "alias"]
    repo.edit("root", lambda signed: signed["keys"].update(alias=signer.public_key.to_dict()))
    repo.edit("root", lambda signed: signed["roles"].update(timestamp={"keyids": keyids, "threshold": 2}))
    repo.release_root()
    repo.edit_envelope(
        "timestamp",
        lambda file: file.update(signatures=[signature(file["signed"], signer, keyid) for keyid in keyids]),
    )
    repo.release("timestamp")


def honest(repo):
    repo.set_keys("timestamp", [*repo.signers["timestamp"], new_key()], threshold=2)
    repo.release_root()
    repo.release("timestamp")


EXPECT = {
    "says": "timestamp metadata has 1 of the 2 valid signatures",
    "stored": {"root": 2, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 2, "timestamp": 2, "snapshot": 1, "targets": 1},
}
