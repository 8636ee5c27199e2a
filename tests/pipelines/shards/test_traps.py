"""What DALI reads wrong without a word, or refuses with a puzzling one, built into a set whose checksums are all right.

Every one is a set that the readers of other programs or DALI itself were seen to take; verify must name the place.
"""

import gzip
import io
import struct
import tarfile

import pytest
from softfeed.pipelines.shards.containers.formats import CONTAINERS
from softfeed.pipelines.shards.containers.tfrecord import masked_crc
from softfeed.pipelines.shards.convert import convert
from softfeed.pipelines.shards.layout import ShardOptions
from softfeed.pipelines.shards.verification.verify import verify


@pytest.fixture
def trapped(tmp_path, image_folder, mutations):
    """Converts 6 images, applies a change to the files of the set, and returns the problems that verify finds."""

    def build(name, change):
        folder = tmp_path / "set"
        convert(image_folder(classes=3, each=2), folder, ShardOptions(format=name, shard_samples=4), workers=1)
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
        change(files)
        mutations.checksums(files)
        for path in list(folder.iterdir()):
            path.unlink()
        for file, data in files.items():
            (folder / file).write_bytes(data)
        return [str(finding) for finding in verify(folder, decode=True, workers=1).findings]

    return build


def _lines(file, change):
    def apply(files):
        lines = files[file].decode().splitlines()
        change(lines)
        files[file] = "".join(f"{line}\n" for line in lines).encode()

    return apply


def _replaced(at, old, new):
    def change(lines):
        assert old in lines[at]
        lines[at] = lines[at].replace(old, new)

    return change


def _triples(lines):
    for number, line in enumerate(lines[1:], 1):
        words = line.split()
        lines[number] = " ".join(word for place, word in enumerate(words) if place % 4 != 3)


def _renumber(lines):
    """Keys that are words, which MXNet takes and DALI does not."""
    for number, line in enumerate(lines):
        lines[number] = f"n{line}"


def _payload_sizes(lines):
    for number, line in enumerate(lines):
        offset, size = line.split()
        lines[number] = f"{offset} {int(size) - 16}"


INDEX_TRAPS = {
    "v1.0, which DALI refuses": ("webdataset", _replaced(0, "v1.2", "v1.0"), "line 1 must be 'v1.2 4"),
    "v1.1 has no file names": ("webdataset", _replaced(0, "v1.2", "v1.1"), "line 1 must be 'v1.2 4"),
    "triples under v1.2": ("webdataset", _triples, "at byte 7, sample 0: line 2 must be 'png 512"),
    "a smaller count drops the tail": ("webdataset", _replaced(0, "v1.2 4", "v1.2 3"), "line 1 must be 'v1.2 4"),
    "a greater count": ("webdataset", _replaced(0, "v1.2 4", "v1.2 5"), "line 1 must be 'v1.2 4"),
    "an offset between blocks": ("webdataset", _replaced(1, "png 512", "png 513"), "sample 0: line 2 must be 'png 512"),
    "an offset at the header": ("webdataset", _replaced(1, "png 512", "png 0"), "sample 0: line 2 must be 'png 512"),
    "a blank in a name": ("webdataset", _replaced(2, "00000001.png", "two words.png"), "sample 1: line 3 must be"),
    "payload sizes": ("tfrecord", _payload_sizes, "at byte 0, sample 0: line 1 must be '0 "),
    "a word ends the index": ("tfrecord", lambda lines: lines.insert(2, "junk"), "sample 2: line 3 must be '"),
    "a heading": ("tfrecord", lambda lines: lines.insert(0, "offset size"), "at byte 0, sample 0: line 1 must be '0 "),
    "keys that are words": ("recordio", _renumber, "at byte 0, sample 0: line 1 must be '0\\t0'"),
    "offsets of one file only": ("recordio", lambda lines: lines.__setitem__(4, "4\t0"), "sample 4: line 5 must be '4"),
    "a record left out": ("recordio", lambda lines: lines.pop(3), "sample 3: line 4 must be '3\\t"),
}


@pytest.mark.parametrize("trap", INDEX_TRAPS)
def test_traps_in_indexes(trapped, trap):
    name, change, message = INDEX_TRAPS[trap]
    index = "shards.idx" if name == "recordio" else "shard-000000.idx"
    problems = trapped(name, _lines(index, change))
    assert any(problem.startswith(index) and message in problem for problem in problems), problems


def _repacked(change, **settings):
    """Pack the first tar again with Python's tarfile, its members changed."""

    def apply(files):
        with tarfile.open(fileobj=io.BytesIO(files["shard-000000.tar"])) as tar:
            members = [(member.name, tar.extractfile(member).read()) for member in tar]
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w", **settings) as tar:
            for name, data in change(members):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        files["shard-000000.tar"] = file.getvalue()

    return apply


def _interleaved(members):
    """All images, then all labels..., as `tar --sort` or a careless loop packs them."""
    return [member for place in range(4) for member in members[place::4]]


def _renamed(prefix):
    return lambda members: [(prefix + name, data) for name, data in members]


def _second_label(files):
    """The label for DALI is another than the one for everybody else."""
    data = bytearray(files["shard-000000.tar"])
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        data[tar.getmember("00000002.label").offset_data] ^= 1
    files["shard-000000.tar"] = bytes(data)


TAR_TRAPS = {
    "dotted stems": (_repacked(_renamed("img.v1.")), "sample 0: record must hold one sample, got 4"),
    "interleaved members": (_repacked(_interleaved), "must have a label"),
    "GNU long names": (_repacked(_renamed("x" * 120), format=tarfile.GNU_FORMAT), "must be as softfeed writes it"),
    "PAX long names": (_repacked(_renamed("x" * 120), format=tarfile.PAX_FORMAT), "must be as softfeed writes it"),
    "hidden members": (_repacked(_renamed(".")), "shard must hold a sample, got none"),
    "blanks in names": (_repacked(_renamed("two words ")), "must be as softfeed writes it"),
    "a label of text": (
        _repacked(lambda members: [(name, b"cat" if name.endswith("cls") else data) for name, data in members]),
        "must be a whole number in .cls, got b'cat'",
    ),
    "two labels that differ": (_second_label, "(member .label) must be as softfeed writes it for label"),
    "a member left out": (_repacked(lambda members: members[:2] + members[3:]), "must be as softfeed writes it"),
    "the end marker left out": (
        lambda files: files.update(
            {"shard-000000.tar": files["shard-000000.tar"].rstrip(b"\0").ljust(512 * 40, b"\0")}
        ),
        "ends without its end marker",
    ),
}


@pytest.mark.parametrize("trap", TAR_TRAPS)
def test_traps_in_tars(trapped, trap):
    change, message = TAR_TRAPS[trap]
    problems = trapped("webdataset", change)
    assert any("shard-000000.tar" in problem and message in problem for problem in problems), problems


def _record(payload):
    length = struct.pack("<Q", len(payload))
    return length + masked_crc(length) + payload + masked_crc(payload)


def _misnamed(files):
    """A record whose features are called otherwise: DALI yields empty tensors for those that are missing."""
    payload = files["shard-000000.tfrecord"][12:]
    payload = payload[: struct.unpack("<Q", files["shard-000000.tfrecord"][:8])[0]]
    first = len(payload) + 16
    changed = _record(payload.replace(b"image/class/label", b"image/class/lable"))
    files["shard-000000.tfrecord"] = changed + files["shard-000000.tfrecord"][first:]


def _unmasked(files):
    """A checksum of the message that is not the one of TFRecord, which DALI does not look at."""
    data = bytearray(files["shard-000000.tfrecord"])
    size = struct.unpack("<Q", data[:8])[0]
    data[12 + size] ^= 1
    files["shard-000000.tfrecord"] = bytes(data)


def _packed(files):
    files["shard-000000.tfrecord"] = gzip.compress(files["shard-000000.tfrecord"])


def _float_label(files):
    data = bytearray(files["shard-000000.rec"])
    data[12:16] = struct.pack("<f", 0.5)
    files["shard-000000.rec"] = bytes(data)


def _early_magic(files):
    data = files["shard-000000.rec"]
    files["shard-000000.rec"] = struct.pack("<I", 0x3ED7230A) + data[4:]


def _magic_in_the_image(files):
    """A record in one piece with the magic number in its image: DALI reads it, readers that follow dmlc do not."""
    data = bytearray(files["shard-000000.rec"])
    data[48 + 32 : 48 + 36] = struct.pack("<I", 0xCED7230A)
    files["shard-000000.rec"] = bytes(data)


RECORD_TRAPS = {
    "a misspelt feature": ("tfrecord", _misnamed, "at byte 0, sample 0: record must have the feature"),
    "a checksum that nobody reads": ("tfrecord", _unmasked, "record must be as softfeed writes it"),
    "compression": ("tfrecord", _packed, "it is compressed"),
    "an empty TFRecord": (
        "tfrecord",
        lambda files: files.update({"shard-000000.tfrecord": b""}),
        "shard must hold a sample, got none",
    ),
    "a label between classes": ("recordio", _float_label, "label must be a whole number, got 0.5"),
    "the early magic number": ("recordio", _early_magic, "record must begin with 0a 23 d7 ce, got 0a 23 d7 3e"),
    "the magic number in an image": ("recordio", _magic_in_the_image, "sample 0"),
    "an empty RecordIO, which DALI refuses": (
        "recordio",
        lambda files: files.update({"shard-000000.rec": b""}),
        "shard must hold a sample, got none",
    ),
}


@pytest.mark.parametrize("trap", RECORD_TRAPS)
def test_traps_in_records(trapped, trap):
    name, change, message = RECORD_TRAPS[trap]
    problems = trapped(name, change)
    file = f"shard-000000{CONTAINERS[name].suffix}"
    assert any(problem.startswith(file) and message in problem for problem in problems), problems


def test_an_index_of_another_program_is_not_taken_for_ours(trapped):
    """Energon writes binary offsets to TAR.tar.idx, and wds2idx cuts names at their first dot."""
    problems = trapped(
        "webdataset", lambda files: files.update({"shard-000000.tar.idx": struct.pack("<4Q", 0, 1, 2, 3)})
    )
    assert problems == ["shard-000000.tar.idx: file must not be in a shard set, dataset.json does not name it"]
