"""The server sends the client to an older timestamp elsewhere: where a file comes from counts for nothing."""

from server import redirect


def prepare(repo):
    repo.begin()
    repo.site.files["elsewhere/timestamp.json"] = repo.bytes("timestamp")
    repo.release()


def attack(repo):
    repo.fault("timestamp", redirect(f"{repo.site.url}/elsewhere/timestamp.json"))


def honest(repo):
    repo.release("timestamp")


EXPECT = {
    "says": "timestamp metadata goes back",
    "stored": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2},
    "twin": {"root": 1, "timestamp": 3, "snapshot": 2, "targets": 2},
}
