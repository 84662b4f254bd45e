#!/usr/bin/env python3
"""Rebuilds the images of a release, from docs/release-format.md alone: the second implementation of that document.

    pip install zstandard
    tests/peers/release_decoder.py REPOSITORY PRODUCT VERSION DIRECTORY [--way plain|whole|seed|patch] [--old NAME=FILE]

REPOSITORY is what `vigil-publish` keeps; the images are written to DIRECTORY by their names. The ways: `plain`, from the
frames that need the chunks before them; `whole`, from a unit's whole frame where it has one; `seed`, chunks that
the old image has are taken from there, the others from plain frames; `patch`, from patch frames and the old image. Images
without an old one are put together from plain frames.
Signatures are not checked here: tuf_interop.py does that. Prints as JSON what the images were put together from.
Exit code 0 when done, 1 if the release is refused, 2 on wrong usage.
"""

import argparse
import hashlib
import json
import re
import struct
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import zstandard

KIB = 1024
MIB = 1024 * KIB
UNIT_BYTES = 4 * MIB
UNIT_BYTES_1 = MIB
FIRST_UNIT_BYTES = 128 * KIB
UNITS = 65_536
CHUNKS = 1 << 20
LEAF_BYTES = 131_072
FRAMES = 1_024
BEFORE_BYTES = 4 * MIB
PATCH_INDEX_BYTES = 4 * MIB
RANGES = 512
RANGES_BYTES = 8 * MIB
UNPACKED_BYTES = 8 * MIB
PACKED_BYTES = 256 * KIB
BLOCKS = 4_096
MANIFEST_BYTES = 64 * KIB
WINDOW_BYTES = 16 * MIB

ZEROS, DATA, SAME = range(3)


class Refused(Exception):
    """The release contradicts itself or the document."""


def check(right: bool, what: str) -> None:
    if not right:
        raise Refused(what)


def sha256(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def most_compressed(size: int) -> int:
    """What a frame that decodes to bytes of a unit of `size` bytes takes at most."""
    return size + size // 128 + 64


def short(content: bytes) -> int:
    return int.from_bytes(sha256(content)[:8], "little")


class Reader:
    """Reads numbers and bytes one after the other."""

    def __init__(self, content: bytes, what: str):
        self.content, self.what, self.at = content, what, 0

    def take(self, count: int) -> bytes:
        check(self.at + count <= len(self.content), f"{self.what} is cut off")
        self.at += count
        return self.content[self.at - count : self.at]

    def number(self, count: int) -> int:
        return int.from_bytes(self.take(count), "little")

    def bits(self, each: int, count: int) -> list[int]:
        packed = self.take((each * count + 7) // 8)
        value = int.from_bytes(packed, "little")
        check(value >> (each * count) == 0, f"{self.what} has bits behind the last chunk's")
        per = 8 // each
        return [packed[i // per] >> (i % per * each) & ((1 << each) - 1) for i in range(count)]

    def end(self) -> None:
        check(self.at == len(self.content), f"{self.what} goes on behind its end")


# ------------------------------------------------------------------------------------------------ manifest and files


@dataclass
class Part:
    """A file that the manifest names."""

    path: Path
    size: int
    sha256: str

    def read(self, offset: int, size: int) -> bytes:
        with self.path.open("rb") as file:
            file.seek(offset)
            content = file.read(size)
        check(len(content) == size, f"{self.path.name} is too short")
        return content

    def whole(self, limit: int) -> bytes:
        check(self.size <= limit, f"{self.path.name} is too long")
        content = self.read(0, self.size)
        check(sha256(content).hex() == self.sha256, f"{self.path.name} has another hash")
        return content


def members(value: object, what: str, needed: set[str], optional: frozenset[str] = frozenset()) -> dict:
    check(isinstance(value, dict), f"{what} is no object")
    check(needed <= value.keys() <= needed | optional, f"{what} has the members {sorted(value)}")
    return value


def part(repository: Path, value: object, what: str) -> Part:
    members(value, what, {"size", "sha256"})
    check(type(value["size"]) is int and value["size"] >= 0, f"{what} has no size")
    check(re.fullmatch("[0-9a-f]{64}", value["sha256"]) is not None, f"{what} has no hash")
    return Part(repository / "blobs" / value["sha256"], value["size"], value["sha256"])


def manifest(repository: Path, product: str, version: str) -> dict:
    """The manifest, by the newest list of targets."""
    name = f"releases/{product}/{version}.json"
    lists = sorted((repository / "metadata").glob("*.targets.json"), key=lambda path: int(path.name.split(".")[0]))
    target = json.loads(lists[-1].read_bytes())["signed"]["targets"].get(name)
    check(target is not None, f"there is no target {name}")
    check(target["length"] <= MANIFEST_BYTES, "the manifest is too long")
    path = repository / "targets" / name
    path = path.with_name(f"{target['hashes']['sha256']}.{path.name}")
    content = Part(path, target["length"], target["hashes"]["sha256"]).whole(MANIFEST_BYTES)
    value = json.loads(content)
    check(value.get("format") in (1, 2), "the manifest has another format")
    needed = {"format", "product", "hardware", "version", "sequence", "images"}
    members(value, "the manifest", needed, frozenset({"install"}))
    check(1 <= len(value["images"]) <= 8, "the manifest has no images, or too many")
    check((value["product"], value["version"]) == (product, version), "the manifest is another release's")
    for image in value["images"]:
        if value["format"] == 1:
            members(image, "an image", {"name", "size", "sha256", "index", "frames"})
        else:
            needed = {"name", "size", "sha256", "index", "leaves", "frames"}
            members(image, "an image", needed, frozenset({"patches"}))
        label = re.fullmatch("(?!\\.)[A-Za-z0-9._-]{1,64}", image["name"])
        check(label is not None and image["size"] > 0, "an image has no name, or is empty")
        check(len(image.get("patches", [])) <= 32, "an image has too many patches")
    return value


# --------------------------------------------------------------------------------------------------------- the parts


@dataclass
class Unit:
    """A unit, as the index says."""

    at: int
    bytes: int
    chunks: int
    leaf_at: int
    leaf_bytes: int
    frames_at: int
    frames_bytes: int
    leaf_sha256: bytes
    digest: bytes


@dataclass
class Index:
    by_content: bool
    chunk_bytes: int
    units: list[Unit]


def parse_index(content: bytes, image_bytes: int, leaves_bytes: int, frames_bytes: int) -> Index:
    reader = Reader(content, "the index")
    check(reader.take(4) == b"VIGX" and reader.number(4) == 3, "this is no index of version 3")
    kind, chunk_bytes, count, size = (reader.number(width) for width in (4, 4, 4, 8))
    check(kind in (0, 1), "the index cuts in no known way")
    largest = 16 * KIB if kind else 64 * KIB
    power = chunk_bytes & (chunk_bytes - 1) == 0
    check(power and 4 * KIB <= chunk_bytes <= largest, f"the index has chunks of {chunk_bytes} bytes")
    check(count <= UNITS, "the index has too many units")
    check(size == image_bytes, "index and manifest differ in the image's bytes")
    units, at, leaf_at, frames_at, chunks = [], 0, 0, 0, 0
    for number in range(count):
        widths = [reader.number(4) for _ in range(4)]
        unit = Unit(at, widths[0], widths[1], leaf_at, widths[2], frames_at, widths[3], reader.take(32), reader.take(32))
        last = number + 1 == count
        check(0 < unit.bytes <= UNIT_BYTES, f"unit {number} has {unit.bytes} bytes")
        check(number > 0 or last or unit.bytes >= FIRST_UNIT_BYTES, "the first unit is too short")
        check(0 < unit.leaf_bytes <= LEAF_BYTES, f"the leaf of unit {number} is too long, or empty")
        most = 2 * most_compressed(unit.bytes) + 64 * KIB
        check(unit.frames_bytes <= most, f"the frames of unit {number} are too long")
        if kind == 0:
            check(last or unit.bytes % chunk_bytes == 0, f"unit {number} ends within a chunk")
            check(unit.chunks == -(-unit.bytes // chunk_bytes), f"unit {number} has {unit.chunks} chunks")
        else:
            least = unit.chunks * (chunk_bytes // 4) - (chunk_bytes // 4 - 1 if last else 0)
            check(least <= unit.bytes <= unit.chunks * chunk_bytes * 4, f"unit {number} has {unit.chunks} chunks")
        at, leaf_at = at + unit.bytes, leaf_at + unit.leaf_bytes
        frames_at, chunks = frames_at + unit.frames_bytes, chunks + unit.chunks
        units.append(unit)
    reader.end()
    check(chunks <= CHUNKS, "the image has too many chunks")
    check(at == image_bytes, "the units are not the image")
    check(leaf_at == leaves_bytes, "the leaves' file has other bytes than the index says")
    check(frames_at == frames_bytes, "the frames' file has other bytes than the index says")
    return Index(kind == 1, chunk_bytes, units)


@dataclass
class Chunk:
    at: int
    bytes: int
    kind: int
    short: int | None = None
    source: int | None = None


@dataclass
class Frame:
    at: int
    bytes: int
    sha256: bytes
    chunks: list[Chunk]


@dataclass
class Leaf:
    context: int
    chunks: list[Chunk]
    plain: list[Frame] = field(default_factory=list)
    whole: Frame | None = None
    before: int = 0
    before_sha256: bytes = b""


def parse_leaf(content: bytes, index: Index, unit: Unit, last: bool) -> Leaf:
    reader = Reader(content, "a leaf")
    count, context = reader.number(2), reader.number(2) * KIB
    check(count <= FRAMES, "a leaf has too many frames")
    check(context <= UNIT_BYTES, "a leaf has too much context")
    before = reader.number(4)
    check(before <= min(unit.at, BEFORE_BYTES), "a leaf tells of more bytes before its unit than there are")
    before_sha256 = reader.take(16) if before else b""
    listed = [(reader.number(4), reader.number(4), reader.take(32)) for _ in range(count)]
    kinds = reader.bits(2, unit.chunks)
    check(max(kinds) <= SAME, "a leaf has a chunk of a fourth kind")
    if index.by_content:
        lengths = [reader.number(2) + 1 for _ in kinds]
        for number, length in enumerate(lengths):
            final = last and number + 1 == len(lengths)
            check(final or length >= index.chunk_bytes // 4, "a chunk is too short")
            check(length <= index.chunk_bytes * 4, "a chunk is too long")
    else:
        lengths = [index.chunk_bytes] * (unit.chunks - 1)
        lengths.append(unit.bytes - sum(lengths))
    check(sum(lengths) == unit.bytes, "the chunks are not the unit")
    chunks, at = [], unit.at
    for kind, length in zip(kinds, lengths):
        chunks.append(Chunk(at, length, kind))
        at += length
    for chunk in chunks:
        if chunk.kind != ZEROS:
            chunk.short = reader.number(8)
    for chunk in chunks:
        if chunk.kind == SAME:
            chunk.source = reader.number(8)
            check(chunk.source + chunk.bytes <= chunk.at, "a chunk repeats what comes later")
    reader.end()
    leaf = Leaf(context, chunks, before=before, before_sha256=before_sha256)
    data = [chunk for chunk in chunks if chunk.kind == DATA]
    at, held, frames = unit.frames_at, 0, []
    check(all(entry[1] > 0 for entry in listed), "a frame holds no chunk")
    most = most_compressed(unit.bytes)
    check(all(0 < entry[0] <= most for entry in listed), "a frame has an impossible length")
    has_whole = len(listed) > 1 and listed[0][1] == len(data)
    for number, (size, holds, hash_) in enumerate(listed):
        if has_whole and number == 0:
            leaf.whole = Frame(at, size, hash_, data)
        else:
            frames.append(Frame(at, size, hash_, data[held : held + holds]))
            held += holds
        at += size
    check(held == len(data), "the frames do not hold the chunks of data")
    check(at == unit.frames_at + unit.frames_bytes, "the frames have other bytes than the index says")
    leaf.plain = frames
    check(before == 0 or leaf.whole is not None, "a leaf tells of bytes before its unit, and no frame needs them")
    return leaf


@dataclass
class PatchFrame:
    at: int
    bytes: int
    sha256: bytes
    ranges: list[tuple[int, int, int]]
    prefix_sha256: bytes
    holds: list[int]
    blocks: list[tuple[int, int, int]]


def zstd_version() -> int:
    major, minor, patch = zstandard.ZSTD_VERSION
    return (major * 100 + minor) * 100 + patch


def parse_patch(content: bytes, index: Index, old_bytes: int, frames_bytes: int) -> tuple[int, dict[int, PatchFrame]]:
    """The level of packed blocks, 0 if there are none, and the frames by their units."""
    reader = Reader(content, "the patch's index")
    check(reader.take(4) == b"VIGP", "this is no patch's index")
    version, count, level = reader.number(4), reader.number(4), 0
    check(version in (1, 2), "the patch's index has an unknown version")
    if version == 2:
        packs, level = reader.number(4), reader.number(4)
        check(packs == zstd_version(), f"blocks are packed by zstd {packs}, and this is {zstd_version()}")
        check(1 <= level <= 19, "blocks are packed with an impossible level")
    frames, at, before = {}, 0, -1
    for _ in range(count):
        number, size, hash_, count = reader.number(4), reader.number(4), reader.take(32), reader.number(4)
        check(before < number < len(index.units), "a patch's frames are not in the units' order")
        check(0 < size <= most_compressed(index.units[number].bytes), "a patch's frame has an impossible length")
        check(count <= RANGES, "a patch's frame has too many ranges")
        ranges = [
            (reader.number(8), reader.number(4), reader.number(4) if version == 2 else 0) for _ in range(count)
        ]
        check(sum(length for _, length, _ in ranges) <= RANGES_BYTES, "a patch's ranges are too long")
        check(sum(unpacked or length for _, length, unpacked in ranges) <= RANGES_BYTES, "a patch's prefix is too long")
        check(all(unpacked <= PACKED_BYTES for _, _, unpacked in ranges), "a range unpacks to too much")
        check(all(begin + length <= old_bytes for begin, length, _ in ranges), "a range is not in the old image")
        half = reader.take(16)
        holds, blocks = reader.bits(1, index.units[number].chunks), []
        if version == 2:
            count = reader.number(4)
            check(count <= BLOCKS, "a patch's frame has too many packed blocks")
            blocks = [(reader.number(4), reader.number(4), reader.number(4)) for _ in range(count)]
            right = all(0 < unpacked <= PACKED_BYTES and packed > 0 for _, unpacked, packed in blocks)
            check(right, "a packed block has an impossible length")
            in_unit = sum(raw + packed for raw, _, packed in blocks)
            check(in_unit <= index.units[number].bytes, "packed blocks are more than their unit")
            check(sum(unpacked for _, unpacked, _ in blocks) <= UNPACKED_BYTES, "packed blocks unpack to too much")
        frames[number] = PatchFrame(at, size, hash_, ranges, half, holds, blocks)
        at, before = at + size, number
    reader.end()
    check(at == frames_bytes, "the patch's frames have other bytes than its index says")
    return level, frames


def unpacked_ranges(frame: PatchFrame, ranges: bytes) -> bytes:
    """The prefix of a patch's frame: of the old image's ranges those that are packed are unpacked."""
    prefix, at = b"", 0
    for _, length, unpacked in frame.ranges:
        content = ranges[at : at + length]
        prefix += decode(content, b"", unpacked, checksum=True) if unpacked else content
        at += length
    return prefix


def packed_again(frame: PatchFrame, content: bytes, level: int) -> bytes:
    """What a patch's frame decodes to, with its packed blocks packed."""
    packer = zstandard.ZstdCompressor(level=level, write_content_size=True, write_checksum=False, write_dict_id=False)
    result, at = b"", 0
    for raw, unpacked, packed in frame.blocks:
        result += content[at : at + raw]
        block = packer.compress(content[at + raw : at + raw + unpacked])
        check(len(block) == packed, "a block packs to another length")
        result += block
        at += raw + unpacked
    return result + content[at:]


# ------------------------------------------------------------------------------------------------ frames, old images


def decode(frame: bytes, prefix: bytes, size: int, checksum: bool = False) -> bytes:
    """Decodes one zstd frame of `size` bytes at most, behind a raw prefix."""
    try:
        parameters = zstandard.get_frame_parameters(frame)
        right = parameters.dict_id == 0 and (checksum or not parameters.has_checksum)
        check(right, "a frame has a dictionary, or a checksum")
        known = parameters.content_size != zstandard.CONTENTSIZE_UNKNOWN
        check(not known or parameters.content_size == size, "a frame decodes to another length")
        raw = zstandard.DICT_TYPE_RAWCONTENT
        dictionary = zstandard.ZstdCompressionDict(prefix, dict_type=raw) if prefix else None
        decompressor = zstandard.ZstdDecompressor(dict_data=dictionary, max_window_size=WINDOW_BYTES)
        content = decompressor.decompress(frame, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise Refused(f"a frame cannot be decoded: {error}") from error
    check(len(content) == size, "a frame decodes to another length")
    return content


# FastCDC, as the document describes it. Of the hash only the bits below the masks' highest matter.
GEAR = [int.from_bytes(hashlib.md5(bytes([value]) * 64).digest()[:8], "big") for value in range(256)]
MASKS = {
    11: 0x0000_D900_0353_0000,
    12: 0x0000_D901_0353_0000,
    13: 0x0000_D903_0353_0000,
    14: 0x0000_D903_1353_0000,
    15: 0x0000_D90F_0353_0000,
}
BELOW = (1 << 48) - 1


def cut_by_content(image: bytes, mean: int) -> list[int]:
    """The lengths of the chunks."""
    bits = mean.bit_length() - 1
    hard, easy, gear = MASKS[bits + 1], MASKS[bits - 1], GEAR
    least, most, lengths, begin = mean // 4, mean * 4, [], 0
    while begin < len(image):
        left = min(len(image) - begin, most)
        length = left
        if left > least:
            value, normal, end = 0, begin + min(mean, left), begin + left - left % 2
            for at in range(begin + least, end):
                value = ((value << 1) + gear[image[at]]) & BELOW
                if not value & (hard if at < normal else easy):
                    length = at - begin
                    break
        lengths.append(length)
        begin += length
    return lengths


def cut(image: bytes, index: Index) -> dict[int, tuple[int, int]]:
    """Where the chunks of an old image are, by their short hashes."""
    if index.by_content:
        lengths = cut_by_content(image, index.chunk_bytes)
    else:
        lengths = [min(index.chunk_bytes, len(image) - at) for at in range(0, len(image), index.chunk_bytes)]
    found, at = {}, 0
    for length in lengths:
        found.setdefault(short(image[at : at + length]), (at, length))
        at += length
    return found


# ------------------------------------------------------------------------------------------------------------ images


class Builder:
    """Puts an image of format 2 together, unit by unit."""

    def __init__(self, repository: Path, image: dict, way: str, old: bytes | None, counts: Counter):
        self.way = "plain" if old is None and way != "whole" else way
        self.counts, self.old = counts, old or b""
        self.frames = part(repository, image["frames"], "frames")
        self.leaves = part(repository, image["leaves"], "leaves")
        index = part(repository, image["index"], "index").whole(28 + 80 * UNITS)
        self.index = parse_index(index, image["size"], self.leaves.size, self.frames.size)
        self.image = bytearray(image["size"])
        self.old_chunks, self.patch, self.patch_frames, self.level = {}, {}, None, 0
        if self.way in ("seed", "patch"):
            self.old_chunks = cut(self.old, self.index)
        if self.way == "patch":
            self.read_patch(repository, image.get("patches", []))

    def read_patch(self, repository: Path, patches: list) -> None:
        for patch in patches:
            members(patch, "a patch", {"from", "from_size", "index", "frames"})
            if (patch["from"], patch["from_size"]) == (sha256(self.old).hex(), len(self.old)):
                self.patch_frames = part(repository, patch["frames"], "a patch's frames")
                index = part(repository, patch["index"], "a patch's index").whole(PATCH_INDEX_BYTES)
                self.level, self.patch = parse_patch(index, self.index, len(self.old), self.patch_frames.size)
                return
        raise Refused("the release has no patch from the old image")

    def build(self) -> bytes:
        for number, unit in enumerate(self.index.units):
            content = self.leaves.read(unit.leaf_at, unit.leaf_bytes)
            check(sha256(content) == unit.leaf_sha256, f"the leaf of unit {number} has another hash")
            leaf = parse_leaf(content, self.index, unit, number + 1 == len(self.index.units))
            found = self.found(number, leaf)
            try:
                self.fill(unit, leaf, found)
                sound = self.digest(leaf) == unit.digest
            except Refused:
                # A wrong chunk is in the prefix of the next frame, too, and spoils what that decodes to.
                sound = False
                if self.way not in ("seed", "patch"):
                    raise
            if not sound and self.way in ("seed", "patch"):
                self.counts["again"] += 1
                self.fill(unit, leaf, {})
            check(self.digest(leaf) == unit.digest, f"unit {number} has another digest")
            self.counts["units"] += 1
        return bytes(self.image)

    def digest(self, leaf: Leaf) -> bytes:
        return sha256(b"".join(sha256(self.image[chunk.at : chunk.at + chunk.bytes]) for chunk in leaf.chunks))

    def found(self, number: int, leaf: Leaf) -> dict[int, bytes]:
        """Chunks of data from elsewhere than the unit's own frames, by where they begin."""
        found = {}
        frame = self.patch.get(number)
        if frame is not None:
            content = self.patch_frames.read(frame.at, frame.bytes)
            check(sha256(content) == frame.sha256, "a patch's frame has another hash")
            ranges = b"".join(self.old[begin : begin + length] for begin, length, _ in frame.ranges)
            check(sha256(ranges)[:16] == frame.prefix_sha256, "the ranges of the old image have another hash")
            held = [chunk for chunk, holds in zip(leaf.chunks, frame.holds) if holds]
            check(all(chunk.kind == DATA for chunk in held), "a patch's frame holds a chunk that is not data")
            grown = sum(unpacked - packed for _, unpacked, packed in frame.blocks)
            size = sum(chunk.bytes for chunk in held)
            check(sum(raw + packed for raw, _, packed in frame.blocks) <= size, "packed blocks are not in their chunks")
            content = decode(content, unpacked_ranges(frame, ranges), size + grown)
            self.put(found, held, packed_again(frame, content, self.level))
            self.counts["patch_frames"] += 1
            self.counts["packed_blocks"] += len(frame.blocks)
        if self.way == "whole" and leaf.whole is not None:
            before = bytes(self.image[leaf.chunks[0].at - leaf.before : leaf.chunks[0].at])
            check(not before or sha256(before)[:16] == leaf.before_sha256, "the bytes before a unit have another hash")
            self.put(found, leaf.whole.chunks, self.decode(leaf.whole, before))
            self.counts["whole_frames"] += 1
            self.counts["whole_with_prefix"] += len(before) > 0
        for chunk in leaf.chunks:
            at, length = self.old_chunks.get(chunk.short, (0, 0))
            if chunk.kind == DATA and chunk.at not in found and length == chunk.bytes:
                found[chunk.at] = self.old[at : at + length]
                self.counts["old_chunks"] += 1
        return found

    def decode(self, frame: Frame, prefix: bytes) -> bytes:
        content = self.frames.read(frame.at, frame.bytes)
        check(sha256(content) == frame.sha256, "a frame has another hash")
        return decode(content, prefix, sum(chunk.bytes for chunk in frame.chunks))

    def put(self, found: dict[int, bytes], chunks: list[Chunk], content: bytes) -> None:
        at = 0
        for chunk in chunks:
            found[chunk.at] = content[at : at + chunk.bytes]
            check(short(found[chunk.at]) == chunk.short, "a frame's chunk has another short hash")
            at += chunk.bytes

    def fill(self, unit: Unit, leaf: Leaf, found: dict[int, bytes]) -> None:
        holder = {chunk.at: frame for frame in leaf.plain for chunk in frame.chunks}
        for chunk in leaf.chunks:
            if chunk.kind == ZEROS:
                content = bytes(chunk.bytes)
                self.counts["zeros"] += 1
            elif chunk.kind == SAME:
                content = self.image[chunk.source : chunk.source + chunk.bytes]
                check(short(content) == chunk.short, "what a chunk repeats has another short hash")
                self.counts["same"] += 1
                self.counts["same_across_units"] += chunk.source < unit.at
            else:
                if chunk.at not in found:
                    frame = holder[chunk.at]
                    begin = frame.chunks[0].at
                    prefix = self.image[max(unit.at, begin - leaf.context) : begin]
                    self.put(found, frame.chunks, self.decode(frame, bytes(prefix)))
                    self.counts["plain_frames"] += 1
                    self.counts["with_prefix"] += len(prefix) > 0
                content = found[chunk.at]
            self.image[chunk.at : chunk.at + chunk.bytes] = content


def build_1(repository: Path, image: dict, counts: Counter) -> bytes:
    """An image of format 1: each unit of 1 MiB is one frame."""
    frames = part(repository, image["frames"], "frames")
    content = part(repository, image["index"], "index").whole(24 + 68 * UNITS)
    reader = Reader(content, "the index")
    check(reader.take(4) == b"VIGX" and reader.number(4) == 1, "this is no index of version 1")
    unit_bytes, count, size = reader.number(4), reader.number(4), reader.number(8)
    check(unit_bytes == UNIT_BYTES_1, "the units have another length")
    check(size == image["size"], "index and manifest differ in the image's bytes")
    check(count == -(-size // unit_bytes), "the units are not the image")
    result, at = bytearray(), 0
    check(count <= UNITS, "the index has too many units")
    for number in range(count):
        length, frame_hash, hash_ = reader.number(4), reader.take(32), reader.take(32)
        check(0 < length <= most_compressed(unit_bytes), f"frame {number} has an impossible length")
        frame = frames.read(at, length)
        check(sha256(frame) == frame_hash, f"frame {number} has another hash")
        unit = decode(frame, b"", min(unit_bytes, size - len(result)))
        check(sha256(unit) == hash_, f"unit {number} has another hash")
        result += unit
        at += length
        counts["plain_frames"] += 1
    reader.end()
    check(at == frames.size, "the frames' file has other bytes than the index says")
    return bytes(result)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repository", type=Path)
    parser.add_argument("product")
    parser.add_argument("version")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--way", choices=["plain", "whole", "seed", "patch"], default="plain")
    parser.add_argument("--old", action="append", default=[], metavar="NAME=FILE")
    arguments = parser.parse_args()
    if bool(arguments.old) != (arguments.way in ("seed", "patch")):
        parser.error("--old goes with --way seed and --way patch")
    old = {name: Path(path).read_bytes() for name, _, path in (each.partition("=") for each in arguments.old)}
    report = {}
    try:
        release = manifest(arguments.repository, arguments.product, arguments.version)
        for image in release["images"]:
            counts = Counter()
            if release["format"] == 1:
                check(arguments.way == "plain", "format 1 has frames only")
                content = build_1(arguments.repository, image, counts)
            else:
                builder = Builder(arguments.repository, image, arguments.way, old.get(image["name"]), counts)
                content = builder.build()
                counts["by_content"] = int(builder.index.by_content)
            check(sha256(content).hex() == image["sha256"], f"the image {image['name']} has another hash")
            (arguments.directory / image["name"]).write_bytes(content)
            report[image["name"]] = counts
    except (Refused, OSError) as error:
        print(f"release_decoder.py: {error}", file=sys.stderr)
        return 1
    print(json.dumps(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
