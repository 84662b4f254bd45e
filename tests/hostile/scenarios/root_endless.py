"""The next root never ends."""

from server import endless


def attack(repo):
    repo.fault_at("metadata/2.root.json", endless(b'{"signed": {'))


def honest(repo):
    repo.release_root()


TIMEOUT = 10
EXPECT = {
    "says": "root metadata has 524289 bytes where 524288 are allowed",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 2, "timestamp": 1, "snapshot": 1, "targets": 1},
}
