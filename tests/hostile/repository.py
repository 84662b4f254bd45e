"""A TUF repository in memory, on python-tuf's Metadata API, that does what an honest operator would do, and whatever
an attacker would.

What is honest is in the objects (`root`, `timestamp`, `snapshot`, `targets`, `delegated`), and `release` publishes it.
What is not comes on top, in three places of a file's making, or in the web server:

    edit(role, change)        changes the dictionary `signed` before it is signed
    edit_envelope(role, ...)  changes the signed file's dictionary: signatures come or go
    edit_bytes(role, change)  changes the bytes; whoever lists the file lists them so
    fault(role, reply)        the server answers something else for the file as it is listed now

`heal` takes all four back and makes a new release, as an operator does who has the repository under control again.
"""

import copy
import hashlib
import json
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import quote

from securesystemslib.exceptions import FormatError
from securesystemslib.formats import encode_canonical
from securesystemslib.signer import CryptoSigner, Signer
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    MetaFile,
    Role,
    Root,
    Signed,
    Snapshot,
    SuccinctRoles,
    TargetFile,
    Targets,
    Timestamp,
)

from server import Reply, Site, whole

TOP_LEVEL = ("root", "timestamp", "snapshot", "targets")
NOW = datetime.now(timezone.utc).replace(microsecond=0)
YESTERDAY = NOW - timedelta(days=1)
SOON = NOW + timedelta(days=30)
FAR = NOW + timedelta(days=9000)
# In every repository, for the proof that a device has recovered.
GREETING = "greeting.txt"

Edit = Callable[[dict[str, Any]], Any]


def new_key() -> Signer:
    return CryptoSigner.generate_ed25519()


def text(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def message(signed: dict[str, Any]) -> bytes:
    """What is signed: canonical JSON, or something like it for what canonical JSON cannot say."""
    try:
        return encode_canonical(signed).encode()
    except FormatError:
        return json.dumps(signed, sort_keys=True, separators=(",", ":")).encode()


def signature(signed: dict[str, Any] | bytes, signer: Signer, keyid: str | None = None) -> dict[str, Any]:
    content = signed if isinstance(signed, bytes) else message(signed)
    return {"keyid": keyid or signer.public_key.keyid, "sig": signer.sign(content).signature}


def broken(file: dict[str, Any]) -> None:
    """Alters the first signature of a file."""
    first = file["signatures"][0]
    first["sig"] = first["sig"][:-1] + ("1" if first["sig"][-1] == "0" else "0")


class Repository:
    def __init__(self, site: Site):
        self.site = site
        self.signers: dict[str, list[Signer]] = {role: [new_key()] for role in TOP_LEVEL}
        self.root = Root(expires=SOON, consistent_snapshot=True)
        for role, signers in self.signers.items():
            self.root.add_key(signers[0].public_key, role)
        self.timestamp = Timestamp(expires=SOON)
        self.snapshot = Snapshot(expires=SOON)
        self.targets = Targets(expires=SOON)
        self.delegated: dict[str, Targets] = {}
        # Whether timestamp and snapshot list lengths and hashes, or versions alone.
        self.lists_content = True
        self.contents: dict[str, bytes] = {}
        self.first_root: bytes | None = None
        self._published: dict[str, bytes] = {}
        self._target_files: dict[tuple[str, str], bytes] = {}
        self._root_signers: list[Signer] = []
        self._edits: dict[str, list[Edit]] = {}
        self._envelope_edits: dict[str, list[Edit]] = {}
        self._byte_edits: dict[str, list[Callable[[bytes], bytes]]] = {}
        self.add_target(GREETING, b"hello")

    # What an honest operator does.

    def begin(self) -> None:
        """The first release, once; a scenario calls it itself if the device saw more than that before the attack."""
        if self.first_root is None:
            self._publish("root")
            self.first_root = self._published["root"]
            self._publish_all([*self.delegated, "targets", "snapshot", "timestamp"])

    def release(self, *roles: str) -> None:
        """A new version of `roles` (targets and all delegated roles if none is named), and of what lists them."""
        changed = list(roles) or [*self.delegated, "targets"]
        if changed != ["timestamp"]:
            changed += [role for role in ("snapshot", "timestamp") if role not in changed]
        self._publish_all(changed)

    def release_root(self, signers: Iterable[Signer] | None = None) -> None:
        """A new version of root, signed by `signers`; by default by all keys that root ever had."""
        self._publish("root", signers)

    def set_keys(self, role: str, signers: list[Signer], threshold: int = 1) -> None:
        """Replaces the keys of a top-level role; to be released with root."""
        self.signers[role] = signers
        self.root.roles[role] = Role([signer.public_key.keyid for signer in signers], threshold)
        everyone = (signer.public_key for signers in self.signers.values() for signer in signers)
        used = {keyid for role in self.root.roles.values() for keyid in role.keyids}
        self.root.keys |= {key.keyid: key for key in everyone}
        self.root.keys = {keyid: key for keyid, key in self.root.keys.items() if keyid in used}

    def add_target(self, name: str, content: bytes, role: str = "targets", genuine: bool = True) -> None:
        """Lists a target in the role, whose next release serves it; a device is meant to get what is `genuine`."""
        file = TargetFile.from_data(name, content, ["sha256"])
        self._signed(role).targets[name] = file
        if genuine:
            self.contents[name] = content
        self._target_files[role, name] = content

    def delegate(
        self,
        name: str,
        paths: list[str] | None = None,
        parent: str = "targets",
        *,
        prefixes: list[str] | None = None,
        terminating: bool = False,
        signers: list[Signer] | None = None,
        threshold: int = 1,
    ) -> None:
        """`parent` delegates to the role `name`, which comes to be if it is new."""
        self.signers[name] = signers = signers or self.signers.get(name) or [new_key()]
        keyids = [signer.public_key.keyid for signer in signers]
        delegations = self._delegations(parent, [signer.public_key for signer in signers])
        delegations.roles[name] = DelegatedRole(name, keyids, threshold, terminating, paths, prefixes)
        self.delegated.setdefault(name, Targets(expires=SOON))

    def delegate_to_bins(self, prefix: str, bits: int) -> SuccinctRoles:
        """`targets` delegates to bins (TAP 15) that share a key."""
        signer = new_key()
        delegations = self._delegations("targets", [signer.public_key])
        bins = SuccinctRoles([signer.public_key.keyid], 1, bits, prefix)
        delegations.roles, delegations.succinct_roles = None, bins
        for name in bins.get_roles():
            self.signers[name] = [signer]
            self.delegated[name] = Targets(expires=SOON)
        return bins

    # What an attacker does.

    def edit(self, role: str, change: Edit) -> None:
        self._edits.setdefault(role, []).append(change)

    def edit_envelope(self, role: str, change: Edit) -> None:
        self._envelope_edits.setdefault(role, []).append(change)

    def edit_bytes(self, role: str, change: Callable[[bytes], bytes]) -> None:
        self._byte_edits.setdefault(role, []).append(change)

    def fault(self, role: str, reply: Reply | bytes) -> None:
        """The server answers so for the current file of the role."""
        self.fault_at(self.path(role), reply)

    def fault_at(self, path: str, reply: Reply | bytes) -> None:
        self.site.faults[path] = whole(reply) if isinstance(reply, bytes) else reply

    def sign_with(self, role: str, *signers: Signer) -> None:
        """The role's next files are signed by these keys and no others."""
        self.edit_envelope(
            role, lambda file: file.update(signatures=[signature(file["signed"], signer) for signer in signers])
        )

    def heal(self, stored: dict[str, dict[str, Any]]) -> None:
        """Takes back what the attacker did and releases everything anew, above any version that `stored` names."""
        for changes in (self._edits, self._envelope_edits, self._byte_edits, self.site.faults):
            changes.clear()
        for role in (*TOP_LEVEL, *self.delegated):
            self._signed(role).expires = FAR
        for role, signed in stored.items():
            self._outrun(role, signed["version"])
            for file, listed in signed.get("meta", {}).items():
                self._outrun(file.removesuffix(".json"), listed["version"])
        self.root.version = stored["root"]["version"]
        self.release_root()
        self.release()

    # What both look at.

    def bytes(self, role: str) -> bytes:
        """The file of the role as it was published last."""
        return self._published[role]

    def path(self, role: str, version: int | None = None) -> str:
        versioned = role == "root" or self.root.consistent_snapshot and role != "timestamp"
        prefix = f"{version or self._signed(role).version}." if versioned else ""
        return f"metadata/{prefix}{quote(role, safe='')}.json"

    def target_path(self, name: str, role: str = "targets") -> str:
        directory, slash, file = name.rpartition("/")
        if self.root.consistent_snapshot:
            file = f"{self._signed(role).targets[name].hashes['sha256']}.{file}"
        return f"targets/{directory}{slash}{file}"

    def _signed(self, role: str) -> Any:
        return getattr(self, role) if role in TOP_LEVEL else self.delegated[role]

    def _delegations(self, parent: str, keys: list[Any]) -> Delegations:
        targets = self._signed(parent)
        if targets.delegations is None:
            targets.delegations = Delegations({}, {})
        targets.delegations.keys |= {key.keyid: key for key in keys}
        return targets.delegations

    def _outrun(self, role: str, version: int) -> None:
        if role in TOP_LEVEL or role in self.delegated:
            self._signed(role).version = max(self._signed(role).version, version)

    def _publish_all(self, roles: Iterable[str]) -> None:
        order = ("targets", "snapshot", "timestamp")
        for role in sorted(roles, key=lambda role: order.index(role) if role in order else -1):
            self._publish(role)

    def _publish(self, role: str, signers: Iterable[Signer] | None = None) -> None:
        signed = self._signed(role)
        if role in self._published:
            signed.version += 1
        if role == "root":
            known = self._root_signers
            known += [signer for signer in self.signers["root"] if signer not in known]
            signers = known if signers is None else signers
        data = self._made(role, signed, self.signers[role] if signers is None else signers)
        self._published[role] = self.site.files[self.path(role)] = data
        listed = MetaFile(signed.version)
        if self.lists_content:
            listed = MetaFile(signed.version, len(data), {"sha256": hashlib.sha256(data).hexdigest()})
        if role == "snapshot":
            self.timestamp.snapshot_meta = listed
        elif role not in TOP_LEVEL or role == "targets":
            self.snapshot.meta[f"{role}.json"] = listed
            for name in signed.targets:
                self.site.files[self.target_path(name, role)] = self._target_files[role, name]

    def _made(self, role: str, content: Signed, signers: Iterable[Signer]) -> bytes:
        signed = copy.deepcopy(content.to_dict())
        for change in self._edits.get(role, []):
            change(signed)
        file = {"signatures": [signature(signed, signer) for signer in signers], "signed": signed}
        for change in self._envelope_edits.get(role, []):
            change(file)
        # Unlike the canonical form, so that a client that verifies over the file's own text is found out.
        data = json.dumps(file, indent=1).encode()
        for change in self._byte_edits.get(role, []):
            data = change(data)
        return data
