"""The timestamp is signed with an RSA key of 1,024 bits, where 2,048 are the least."""

from securesystemslib.signer import CryptoSigner


def rotate(repo, bits):
    signer = CryptoSigner.generate_rsa(size=bits)
    keyid = signer.public_key.keyid
    repo.edit("root", lambda signed: signed["keys"].update({keyid: signer.public_key.to_dict()}))
    repo.edit("root", lambda signed: signed["roles"]["timestamp"].update(keyids=[keyid]))
    repo.release_root()
    repo.sign_with("timestamp", signer)
    repo.release("timestamp")


def attack(repo):
    rotate(repo, 1024)


def honest(repo):
    rotate(repo, 2048)


EXPECT = {
    "says": "timestamp metadata has 0 of the 1 valid signatures",
    "stored": {"root": 2, "targets": 1},
    "twin": {"root": 2, "timestamp": 2, "snapshot": 1, "targets": 1},
}
