"""A delegation lists one key under two ids, which must count once."""

from repository import new_key, signature


def attack(repo):
    repo.delegate("products", ["products/*"], threshold=2)
    repo.add_target("products/app.bin", b"app", role="products")
    signer = repo.signers["products"][0]
    keyids = [signer.public_key.keyid, "alias"]
    repo.edit("targets", lambda signed: signed["delegations"]["keys"].update(alias=signer.public_key.to_dict()))
    repo.edit("targets", lambda signed: signed["delegations"]["roles"][0].update(keyids=keyids))
    repo.edit_envelope(
        "products",
        lambda file: file.update(signatures=[signature(file["signed"], signer, keyid) for keyid in keyids]),
    )
    repo.release()


def honest(repo):
    repo.delegate("products", ["products/*"], signers=[new_key(), new_key()], threshold=2)
    repo.add_target("products/app.bin", b"app", role="products")
    repo.release()


TARGET = "products/app.bin"
EXPECT = {
    "says": 'delegated role "products" metadata has 1 of the 2 valid signatures',
    "stored": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2},
    "twin": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2, "products": 1},
}
