"""A timestamp has more signatures than anyone needs, each of which would have to be verified."""


def add_signatures(repo, number):
    strangers = [{"keyid": str(index), "sig": ""} for index in range(number)]
    repo.edit_envelope("timestamp", lambda file: file["signatures"].extend(strangers))
    repo.release("timestamp")


def attack(repo):
    add_signatures(repo, 300)


def honest(repo):
    add_signatures(repo, 100)


EXPECT = {
    "says": "more than 256 signatures",
    "stored": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1},
}
