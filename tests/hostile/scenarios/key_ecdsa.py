"""A signature with an ECDSA key is altered."""

from securesystemslib.signer import CryptoSigner

from repository import broken


def prepare(repo):
    repo.set_keys("timestamp", [CryptoSigner.generate_ecdsa()])


def attack(repo):
    repo.edit_envelope("timestamp", broken)
    repo.release("timestamp")


def honest(repo):
    repo.release("timestamp")


EXPECT = {
    "says": "timestamp metadata has 0 of the 1 valid signatures",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
}
