#!/usr/bin/env python3
"""Verifies a device's audit log with nothing of Vigil's: hashlib for the RFC 6962 tree, python-cryptography for the
Ed25519 signature of the C2SP checkpoint.

    pip install cryptography
    tests/peers/audit_log.py STATE/audit STATE/identity/device.pub

Only for a log that has all its segments. Exit code 0 if root and signature are right, 1 if not, 2 on wrong usage.
"""

import base64
import hashlib
import json
import sys
from pathlib import Path

try:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
except ImportError:
    sys.exit("python3 has no cryptography; run tests/run, which installs what the tests need")


def root(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962, section 2.1, as it is written there."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return hashlib.sha256(b"\x01" + root(leaves[:split]) + root(leaves[split:])).digest()


def entries(directory: Path) -> list[bytes]:
    found = []
    for path in sorted(directory.glob("segment-*.jsonl")):
        header, *lines = path.read_bytes().splitlines(keepends=True)
        if json.loads(header)["first"] != len(found):
            sys.exit(f"{path}: does not begin at entry {len(found)}")
        found.extend(line[:-1] for line in lines if line.endswith(b"\n"))
    return found


def main() -> int:
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    directory = Path(sys.argv[1])
    key = base64.b64decode(Path(sys.argv[2]).read_text().strip(), validate=True)
    note = (directory / "checkpoint").read_text(encoding="utf-8")
    text, signatures = note.split("\n\n", 1)
    text += "\n"
    origin, size, claimed = text.splitlines()[:3]
    dash, name, signature = signatures.splitlines()[0].split(" ")
    signature = base64.b64decode(signature, validate=True)
    key_id = hashlib.sha256(name.encode() + b"\n" + b"\x01" + key).digest()[:4]
    if dash != "\u2014" or name != origin or signature[:4] != key_id:
        sys.exit("the note is not signed under the log's name and key")
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature[4:], text.encode())
    except InvalidSignature:
        sys.exit("the checkpoint's signature does not verify")
    leaves = entries(directory)
    if len(leaves) < int(size):
        sys.exit(f"signed over {size} entries, {len(leaves)} found")
    for index, leaf in enumerate(leaves):
        if json.loads(leaf)["index"] != index:
            sys.exit(f"entry {index} says it is another")
    computed = base64.b64encode(root(leaves[: int(size)])).decode()
    if computed != claimed:
        sys.exit(f"the root is {computed}, signed is {claimed}")
    print(json.dumps({"origin": origin, "size": int(size), "root": computed}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
