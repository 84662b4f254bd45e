"""A timestamp is signed over JSON that is not canonical; how the file itself is written is free."""

import json

from repository import signature


def attack(repo):
    signer = repo.signers["timestamp"][0]
    repo.edit_envelope(
        "timestamp",
        lambda file: file.update(signatures=[signature(json.dumps(file["signed"]).encode(), signer)]),
    )
    repo.release("timestamp")


def honest(repo):
    repo.edit("timestamp", lambda signed: signed.update(note='\u00e9 \\ " / \n \U0001f512'))
    repo.edit_bytes("timestamp", lambda data: json.dumps(json.loads(data), indent="\t ").encode())
    repo.release("timestamp")


EXPECT = {
    "says": "timestamp metadata has 0 of the 1 valid signatures",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
}
