"""A key of a type that nobody knows is kept, and a signature of its does not count."""


def add_key(repo, threshold):
    key = {"keytype": "x-lattice", "scheme": "x-lattice-3", "keyval": {"public": "00", "salt": [1]}, "note": "new"}
    repo.edit("root", lambda signed: signed["keys"].update(lattice=key))
    repo.edit("root", lambda signed: signed["roles"]["timestamp"]["keyids"].append("lattice"))
    repo.edit("root", lambda signed: signed["roles"]["timestamp"].update(threshold=threshold))
    repo.release_root()
    repo.edit_envelope("timestamp", lambda file: file["signatures"].append({"keyid": "lattice", "sig": "00"}))
    repo.release("timestamp")


def attack(repo):
    add_key(repo, threshold=2)


def honest(repo):
    add_key(repo, threshold=1)


EXPECT = {
    "says": "timestamp metadata has 1 of the 2 valid signatures",
    "stored": {"root": 2, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 2, "timestamp": 2, "snapshot": 1, "targets": 1},
}
