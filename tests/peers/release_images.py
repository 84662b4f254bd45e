#!/usr/bin/env python3
"""Publishes releases and has release_decoder.py rebuild their images, in every way; then damages what it reads.

    tests/peers/release_images.py VIGIL_PUBLISH

The images hold files of this machine's Python, as they are (chunks are aligned), compressed one by one (cut by
content) and in blocks of zstd as squashfs has them (which patches unpack), with zeros, blocks that occur twice, a length that is no multiple of 4096, and a small one beside them. Exit code 0 if all images
are the same to the byte and all damage is noticed, 1 if not, 2 on wrong usage.
"""

import json
import random
import subprocess
import sys
import sysconfig
import tempfile
import zlib
from collections import Counter
from pathlib import Path

import zstandard

import release_decoder as decoder

DECODER = Path(__file__).with_name("release_decoder.py")
KIB = decoder.KIB


class Wrong(Exception):
    """The decoder did not do what it should."""


def check(right: bool, what: str) -> None:
    if not right:
        raise Wrong(what)


# ------------------------------------------------------------------------------------------------------------ images


def files() -> list[bytes]:
    """Real files, 6 MiB and more of them."""
    content, size = [], 0
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).rglob("*.py")):
        if "site-packages" not in path.parts and size < 6 << 20:
            content.append(path.read_bytes())
            size += len(content[-1])
    return content


def changed(content: list[bytes], noise: random.Random) -> list[bytes]:
    """One file in twenty is another, and some are new."""
    result = []
    for number, file in enumerate(content):
        if number % 20 == 3:
            middle = len(file) // 2
            file = file[:middle] + b"# " + noise.randbytes(20).hex().encode() + b"\n" + file[middle:]
        result.append(file)
        if number % 40 == 7:
            result.append(noise.randbytes(9_000))
    return result


def laid_out(content: list[bytes]) -> bytes:
    """As a file system does it that compresses nothing: every file begins in a block of its own."""
    return b"".join(file + bytes(-len(file) % 4096) for file in content)


def compressed(content: list[bytes]) -> bytes:
    """As one does it that compresses: files follow without gaps."""
    return b"".join(zlib.compress(file, 9) for file in content)


def squashed(content: list[bytes]) -> bytes:
    """As squashfs does it: blocks of files, each a zstd frame."""
    packer = zstandard.ZstdCompressor(level=15)
    blocks = (file[at : at + 128 * KIB] for file in content for at in range(0, len(file), 128 * KIB))
    return b"".join(packer.compress(block) for block in blocks)


def odd(noise: random.Random) -> bytes:
    """An image whose last byte would end a chunk before it, but is left untested: the last chunk's length is odd."""
    mean = 4 * KIB
    mask = decoder.MASKS[mean.bit_length() - 2]
    while True:
        body = noise.randbytes(70_000)
        begin = len(body) - decoder.cut_by_content(body, mean)[-1]
        value, rest = 0, len(body) - begin
        for byte in body[begin + mean // 4 :]:
            value = (value << 1) + decoder.GEAR[byte]
        for last in range(256):
            if rest >= mean and rest % 2 == 0 and not ((value << 1) + decoder.GEAR[last]) & mask:
                return body + bytes([last])


def images() -> dict[str, tuple[bytes, bytes]]:
    """Old and new image by product."""
    noise = random.Random(1)
    before = files()
    after = changed(before, noise)
    text = b"".join(before)[: 500 * KIB]
    plain, repeated = laid_out(before), laid_out(after)
    packed, repacked = compressed(before), compressed(after)
    blocks, other_blocks = squashed(before), squashed(after)
    return {
        "aligned": (
            plain[: 3 << 20] + bytes(300 * KIB) + plain[3 << 20 :],
            repeated[: 3 << 20] + bytes(400 * KIB) + repeated[3 << 20 :] + repeated[1 << 20 : 2 << 20] + text[:123_457],
        ),
        "content": (
            packed + packed[: 500 * KIB] + noise.randbytes(4 << 20),
            repacked + bytes(200 * KIB) + noise.randbytes(5 << 20) + repacked[:1 << 20] + text,
        ),
        "packed": (
            blocks + noise.randbytes(4 << 20),
            other_blocks + bytes(200 * KIB) + noise.randbytes(5 << 20) + other_blocks[:1 << 20] + text,
        ),
    }


# ------------------------------------------------------------------------------------------------------- the decoder


class Case:
    """A repository, and where the decoder writes."""

    def __init__(self, directory: Path, publish: str):
        self.directory, self.publish = directory, publish
        self.repository, self.out = directory / "repo", directory / "out"
        self.out.mkdir()
        self.call("init")

    def call(self, *arguments: str) -> str:
        at = ["--repo", str(self.repository), "--keys", str(self.directory / "keys")]
        return subprocess.run([self.publish, "--json", *arguments, *at], check=True, stdout=subprocess.PIPE).stdout

    def release(self, product: str, sequence: int, files: dict[str, Path], *more: str) -> dict:
        named = [word for name, path in files.items() for word in ("--image", f"{name}={path}")]
        version = ["--product", product, "--version", f"{sequence}.0.0", "--sequence", str(sequence), "--hardware", "r1"]
        return json.loads(self.call("release", "add", *version, *named, "--level", "6", *more))["manifest"]

    def decode(self, product: str, sequence: int, way: str, old: dict[str, Path]) -> subprocess.CompletedProcess:
        for path in self.out.iterdir():
            path.unlink()
        command = [sys.executable, DECODER, self.repository, product, f"{sequence}.0.0", self.out, "--way", way]
        command += [word for name, path in old.items() for word in ("--old", f"{name}={path}")]
        return subprocess.run(command, capture_output=True, text=True)

    def rebuild(self, product: str, sequence: int, way: str, files: dict, old: dict) -> dict[str, Counter]:
        done = self.decode(product, sequence, way, old)
        check(done.returncode == 0, f"{product} {way}: {done.stderr.strip()}")
        for name, path in files.items():
            check((self.out / name).read_bytes() == path.read_bytes(), f"{product} {way}: {name} is another image")
        print(f"{product} {sequence}.0.0 {way}: {done.stdout.strip()}")
        return {name: Counter(counts) for name, counts in json.loads(done.stdout).items()}

    def damaged(self, product: str, sequence: int, way: str, old: dict, path: Path, at: int, said: str) -> None:
        """A bit of a file is another, and the decoder says so."""
        sound = path.read_bytes()
        broken = bytearray(sound)
        broken[at] ^= 4
        path.write_bytes(broken)
        done = self.decode(product, sequence, way, old)
        path.write_bytes(sound)
        refused = done.returncode == 1 and said in done.stderr and not (self.out / "rootfs").exists()
        check(refused, f"{product} {way}, damaged {path.name}: not “{said}” but “{done.stderr.strip()}”")


def cut_as_described(case: Case, product: str, image: dict, content: bytes) -> None:
    """The publisher cuts chunks and units by the rules that only publishers need."""
    builder = decoder.Builder(case.repository, image, "plain", None, Counter())
    index = builder.index
    if index.by_content:
        lengths = decoder.cut_by_content(content, index.chunk_bytes)
    else:
        lengths = [min(index.chunk_bytes, len(content) - at) for at in range(0, len(content), index.chunk_bytes)]
    units, unit, at = [], 0, 0
    for length in lengths:
        if unit + length > decoder.UNIT_BYTES:
            units.append(unit)
            unit = 0
        unit += length
        ends = decoder.short(content[at : at + length]) % (decoder.MIB // index.chunk_bytes) == 0
        at += length
        if unit >= decoder.MIB and ends:
            units.append(unit)
            unit = 0
    units += [unit] if unit else []
    check(units == [unit.bytes for unit in index.units], f"{product}: the units are {units}, not as described")


def distrust(case: Case, image: dict, content: bytes, old: bytes) -> None:
    """If short hashes find other chunks than they should, all are taken from the frames."""
    counts = Counter()
    builder = decoder.Builder(case.repository, image, "seed", old, counts)
    builder.old = bytes(byte ^ 1 for byte in old)
    check(builder.build() == content, "what short hashes found is believed")
    check(counts["again"] > 0 and counts["old_chunks"] > 0, f"no digest was wrong: {counts}")


def run(case: Case) -> None:
    content = odd(random.Random(2))
    small = {"aligned": b"".join(files())[:50_001], "content": content, "packed": content}
    for product, (before, after) in images().items():
        old, new = ({name: case.directory / f"{product}-{which}-{name}" for name in ("rootfs", "boot")} for which in "on")
        old["rootfs"].write_bytes(before)
        new["rootfs"].write_bytes(after)
        old["boot"].write_bytes(small[product][:30_000] + b"another")
        new["boot"].write_bytes(small[product])
        check(len(after) % 4096 != 0, "the image's length is a multiple of 4096")
        case.release(product, 1, old, "--format", "1")
        case.rebuild(product, 1, "plain", old, {})
        case.release(product, 2, old, "--format", "2")
        released = case.release(product, 3, new, "--format", "2", "--patches", "1")
        image = released["images"][0]
        content = product != "aligned"

        made = {way: case.rebuild(product, 3, way, new, {}) for way in ("plain", "whole")}
        made |= {way: case.rebuild(product, 3, way, new, old) for way in ("seed", "patch")}
        # An image that has all chunks: whoever cuts in another way does not find them.
        made["itself"] = case.rebuild(product, 3, "seed", new, new)
        roots = {way: report["rootfs"] for way, report in made.items()}
        check(all(counts["by_content"] == content for counts in roots.values()), f"{product}: chunks are cut otherwise")
        for count in ("zeros", "same", "same_across_units", "plain_frames"):
            check(roots["plain"][count] > 0, f"{product}: no {count}")
        check(roots["plain"]["units"] > 1, f"{product}: there is one unit only")
        # Where chunks are cut by content, frames with context and whole ones would hardly be smaller: there are none.
        for way, count in (("plain", "with_prefix"), ("whole", "whole_frames"), ("whole", "whole_with_prefix")):
            check(content or roots[way][count] > 0, f"{product} {way}: no {count}")
        check(0 < roots["seed"]["plain_frames"] < roots["plain"]["plain_frames"], f"{product}: no frame was saved")
        check(roots["seed"]["old_chunks"] > 0, f"{product}: nothing came from the old image")
        for part in ("rootfs", "boot"):
            check(made["patch"][part]["patch_frames"] > 0, f"{product}: no patch frame for {part} was read")
            check(made["patch"][part]["plain_frames"] == 0, f"{product}: the patch for {part} lacks chunks")
            check(made["itself"][part]["plain_frames"] == 0, f"{product}: {part} was cut otherwise")
        packed = made["patch"]["rootfs"]["packed_blocks"]
        check((packed > 0) == (product == "packed"), f"{product}: {packed} packed blocks")
        cut_as_described(case, product, image, after)
        distrust(case, image, after, before)

        blobs, patch = case.repository / "blobs", image["patches"][0]
        for what, part, way, at, said in (
            ("index", image["index"], "plain", 20, "has another hash"),
            ("leaves", image["leaves"], "plain", -1, "the leaf of unit"),
            ("frames", image["frames"], "plain", -1, "a frame has another hash"),
            ("patch's index", patch["index"], "patch", -1, "has another hash"),
            ("patch's frames", patch["frames"], "patch", 20, "a patch's frame has another hash"),
        ):
            given = old if way == "patch" else {}
            case.damaged(product, 3, way, given, blobs / part["sha256"], at, said)
            print(f"{product}: a damaged bit of the {what} is noticed")
        if not content:
            at = whole_frame(case, image)
            case.damaged(product, 3, "whole", {}, blobs / image["frames"]["sha256"], at, "a frame has another hash")
        case.damaged(product, 3, "patch", old, old["rootfs"], 20, "no patch from the old image")
    format_1 = case.release("format-1", 1, new, "--format", "1")["images"][0]
    case.damaged("format-1", 1, "plain", {}, case.repository / "blobs" / format_1["index"]["sha256"], 30, "has another hash")
    case.damaged("format-1", 1, "plain", {}, case.repository / "blobs" / format_1["frames"]["sha256"], -1, "has another hash")
    manifest = next((case.repository / "targets/releases/format-1").iterdir())
    case.damaged("format-1", 1, "plain", {}, manifest, 20, "has another hash")


def whole_frame(case: Case, image: dict) -> int:
    """Where the first unit's whole frame is that has one."""
    builder = decoder.Builder(case.repository, image, "plain", None, Counter())
    units = builder.index.units
    for number, unit in enumerate(units):
        content = builder.leaves.read(unit.leaf_at, unit.leaf_bytes)
        leaf = decoder.parse_leaf(content, builder.index, unit, number + 1 == len(units))
        if leaf.whole is not None:
            return leaf.whole.at + leaf.whole.bytes // 2
    raise Wrong("no unit has a whole frame")


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as directory:
        try:
            run(Case(Path(directory), sys.argv[1]))
        except Wrong as error:
            print(f"release_images.py: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
