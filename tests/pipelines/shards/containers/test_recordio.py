"""RecordIO: written in dmlc's escaped form, read back by a small parser of the documented layout, scanned strictly."""

import struct

import pytest
from softfeed.pipelines.shards.containers.container import USUAL, Columns, FileReader, Problem, ShardFile, StoredSample
from softfeed.pipelines.shards.containers.recordio import ShardWriter, contents, scan, set_index, unwrap

hypothesis = pytest.importorskip("hypothesis", reason="hypothesis is not installed; it comes with softfeed[test]")
given, st = hypothesis.given, hypothesis.strategies

MAGIC = struct.pack("<I", 0xCED7230A)


def _sample(image, key=0, label=3):
    return StoredSample(key, image, "jpg", label, "cat", "cats/größe.jpg", 1, 1)


def _write(path, *samples):
    writer = ShardWriter(ShardFile(path))
    placed = [writer.add(sample) for sample in samples]
    writer.finish()
    return placed, path.read_bytes()


def _documented(data):
    """Records by dmlc's layout: kinds of their parts, and payloads with the magic number put back between parts."""
    records, offset = [], 0
    kinds, payload = [], b""
    while offset < len(data):
        magic, word = struct.unpack_from("<II", data, offset)
        assert magic == 0xCED7230A
        kind, length = word >> 29, word & (2**29 - 1)
        payload += (MAGIC if kinds else b"") + data[offset + 8 : offset + 8 + length]
        kinds.append(kind)
        offset += 8 + (length + 3) // 4 * 4
        if kind in (0, 3):
            records.append((kinds, payload))
            kinds, payload = [], b""
    assert not kinds
    return records


_pieces = st.lists(
    st.one_of(st.just(MAGIC), st.binary(max_size=9), st.sampled_from([MAGIC * 3, b"\x0a", b"\x0a\x23\xd7"]))
)


@given(st.lists(_pieces.map(b"".join), min_size=1, max_size=4))
def test_any_bytes_come_back(tmp_path_factory, images):
    path = tmp_path_factory.mktemp("any") / "a.rec"
    placed, data = _write(path, *(_sample(image, key) for key, image in enumerate(images)))
    for key, (image, (kinds, payload), place) in enumerate(zip(images, _documented(data), placed, strict=True)):
        assert payload == struct.pack("<IfQQ", 0, 3.0, key, 0) + image
        assert kinds == ([0] if place.parts == 1 else [1, *[2] * (place.parts - 2), 3])
    aligned = [sum(image[at : at + 4] == MAGIC for at in range(0, len(image), 4)) for image in images]
    for image, place, most in zip(images, placed, aligned, strict=True):
        assert place.parts <= most + 1  # two magic numbers cannot overlap, as no end of one begins another
        assert (place.parts > 1) == any(image[at : at + 4] == MAGIC for at in range(0, len(image), 4))
    entries = list(scan(path))
    assert [entry.parts for entry in entries] == [place.parts for place in placed]
    for image, entry, place in zip(images, entries, placed, strict=True):
        assert unwrap(data[entry.offset : entry.offset + entry.size]) == image
        stored = data[place.image.offset : place.image.offset + len(image) + 4 * (place.parts - 1)]
        assert unwrap(data[entry.offset : place.image.offset] + stored) == image  # without padding, as loaders read
        with FileReader(path) as read:
            found = contents(entry, read, USUAL)
        assert [content.image for content in found] == ([(place.image.offset, len(stored))] if image else [])


def test_magic_numbers_in_the_header_are_escaped_too(tmp_path):
    """Header fields of other programs may hold it: here the identity, which is at a multiple of 4 bytes."""
    image = b"pixels!!" + MAGIC + b"more"
    header = struct.pack("<IfQ", 0, 7.0, 0xCED7230A)
    parts = [header[:8], header[12:] + bytes(8) + image[:8], b"more"]
    data = b""
    for kind, part in zip((1, 2, 3), parts, strict=True):
        data += MAGIC + struct.pack("<I", kind << 29 | len(part)) + part
    path = tmp_path / "a.rec"
    path.write_bytes(data)
    (entry,) = scan(path)
    with FileReader(path) as read:
        (content,) = contents(entry, read, USUAL)
    assert (content.label, entry.parts, unwrap(data)) == (7, 3, image)
    assert data[content.image.offset :].startswith(b"pixels!!" + MAGIC)


def test_places_and_padding(tmp_path):
    images = [b"x" * size for size in range(1, 9)]
    placed, data = _write(tmp_path / "a.rec", *(_sample(image) for image in images))
    assert len(data) % 4 == 0
    for image, place in zip(images, placed, strict=True):
        assert data[place.image.offset :].startswith(image)
        assert place.image.offset % 4 == 0
        assert place.name == (0, len("cats/größe.jpg".encode()))


def test_index_lines_are_those_of_im2rec():
    assert set_index([0, 48, 1000]) == "0\t0\n1\t48\n2\t1000\n"


def test_what_the_format_cannot_hold_is_refused(tmp_path):
    writer = ShardWriter(ShardFile(tmp_path / "a.rec"))
    writer.add(_sample(b"x", label=1 << 24))
    with pytest.raises(ValueError, match=f"label must be at most {1 << 24} for RecordIO, got {(1 << 24) + 1}"):
        writer.add(_sample(b"x", label=(1 << 24) + 1))
    with pytest.raises(ValueError, match="image must be below 512 MiB for RecordIO"):
        writer.add(_sample(bytes(1 << 29)))
    writer.close()


def _part(kind, payload, *, length=None):
    padded = payload + bytes(-len(payload) % 4)
    return MAGIC + struct.pack("<I", kind << 29 | (len(payload) if length is None else length)) + padded


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x0a\x23\xd7\x3e" + bytes(40), "record must begin with 0a 23 d7 ce, got 0a 23 d7 3e"),
        (_part(0, bytes(40))[:-4], "record of 40 bytes reaches beyond the end of the file, which was cut short"),
        (_part(0, bytes(40), length=(1 << 29) - 1), "reaches beyond the end of the file"),
        (_part(0, bytes(41))[:-3], "reaches beyond the end of the file"),  # without its padding
        (MAGIC, "ends in the middle of a record's head"),
        (_part(5, bytes(40)), "kind of a record's part must be 0 to 3, got 5"),
        (_part(2, bytes(40)), "part 1 of a record must continue it, got one of kind 2"),
        (_part(1, bytes(40)) + _part(0, bytes(8)), "part 2 of a record must continue it, got one of kind 0"),
        (_part(1, bytes(40)), "ends in the middle of a record's head"),
        (_part(1, bytes(42)) + _part(3, b""), "parts but the last must be multiples of 4 bytes, got 42"),
    ],
)
def test_a_scan_believes_nothing(tmp_path, data, words):
    good = _part(0, bytes(24) + b"image")
    (tmp_path / "a.rec").write_bytes(good + data)
    first, problem = scan(tmp_path / "a.rec")
    assert (first.offset, first.size, first.parts) == (0, len(good), 1)
    assert isinstance(problem, Problem)
    assert (problem.offset, problem.is_end) == (len(good), True)
    assert words in problem.reason


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (b"", "must have a header of 24 bytes, got 0"),
        (bytes(20), "must have a header of 24 bytes, got 20"),
        (struct.pack("<IfQQ", 3, 0, 0, 0) + bytes(8), "must hold its labels, at most 4096, got 3 in 32 bytes"),
        (struct.pack("<IfQQ", 2**32 - 1, 0, 0, 0) + bytes(8), f"at most 4096, got {2**32 - 1}"),
    ],
)
def test_headers_that_do_not_fit_are_refused(tmp_path, payload, words):
    (tmp_path / "a.rec").write_bytes(_part(0, payload))
    (entry,) = scan(tmp_path / "a.rec")
    with pytest.raises(ValueError, match=words), FileReader(tmp_path / "a.rec") as read:
        contents(entry, read, USUAL)


@given(st.binary(max_size=200))
def test_any_bytes_are_unwrapped_or_refused(data):
    for record in (data, MAGIC + data):
        try:
            assert len(unwrap(record)) <= len(record)
        except ValueError:
            pass


@pytest.mark.parametrize(("column", "label"), [(None, None), ("1", 9), ("cls", None), ("-1", None), ("2", None)])
def test_one_of_several_labels_is_taken_by_its_position(tmp_path, column, label):
    (tmp_path / "a.rec").write_bytes(_part(0, struct.pack("<IfQQ2f", 2, 0, 0, 0, 7, 9) + b"image"))
    (entry,) = scan(tmp_path / "a.rec")
    with FileReader(tmp_path / "a.rec") as read:
        if label is not None:
            (content,) = contents(entry, read, Columns(None, column))
            assert content.label == label
            return
        words = {"2": "at position 2, got 2 labels", None: "must have one label, got 2"}
        with pytest.raises(ValueError, match=words.get(column, "must be the position of a label in RecordIO, got")):
            contents(entry, read, Columns(None, column))
