"""A name of 10,000 characters is there twice, forty objects down, in a field that is not known."""

import json

from texts import insert, long


def nested(innermost):
    return '{"n": ' * 40 + innermost + "}" * 40


def attack(repo):
    name = long("\u2028", 10_000)
    repo.edit_bytes("targets", insert('"note": ' + nested(f'{{"{name}": 1, "{name}": 2}}')))
    repo.release("targets")


def honest(repo):
    repo.edit("targets", lambda signed: signed.update(note=json.loads(nested('{"a": 1, "b": 2}'))))
    repo.release("targets")


EXPECT = {
    "says": "targets metadata cannot be read: a key is there twice",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2},
}
