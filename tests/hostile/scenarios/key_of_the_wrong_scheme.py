"""The timestamp's Ed25519 key is listed with a scheme that it does not have."""


def attack(repo):
    key = repo.signers["timestamp"][0].public_key
    repo.edit("root", lambda signed: signed["keys"][key.keyid].update(scheme="rsassa-pss-sha256"))
    repo.release_root()
    repo.release("timestamp")


def honest(repo):
    repo.release_root()
    repo.release("timestamp")


EXPECT = {
    "says": "timestamp metadata has 0 of the 1 valid signatures",
    "stored": {"root": 2, "targets": 1},
    "twin": {"root": 2, "timestamp": 2, "snapshot": 1, "targets": 1},
}
