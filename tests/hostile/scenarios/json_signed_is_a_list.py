"""The signed part of a timestamp is a list of the values in their order."""

import json


def as_list(data):
    file = json.loads(data)
    return json.dumps(file | {"signed": list(file["signed"].values())}).encode()


def attack(repo):
    repo.edit_bytes("timestamp", as_list)
    repo.release("timestamp")


def honest(repo):
    repo.release("timestamp")


EXPECT = {
    "says": "timestamp metadata cannot be read: `signed` is not a JSON object",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
}
