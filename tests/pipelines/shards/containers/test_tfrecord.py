"""TFRecord: written as TensorFlow's readers expect it, and scanned strictly."""

import struct
import zlib

import numpy as np
import pytest
from softfeed.pipelines.shards.containers.container import (
    USUAL,
    Columns,
    Entry,
    FileReader,
    Problem,
    ShardFile,
    StoredSample,
)
from softfeed.pipelines.shards.containers.protobuf import example
from softfeed.pipelines.shards.containers.tfrecord import ShardWriter, contents, masked_crc, scan, unwrap

google_crc32c = pytest.importorskip("google_crc32c", reason="google-crc32c is not installed, which TFRecord needs")
tfrecord = pytest.importorskip("tfrecord", reason="tfrecord is not installed; it comes with softfeed[test]")
example_pb2 = tfrecord.example_pb2
hypothesis = pytest.importorskip("hypothesis", reason="hypothesis is not installed; it comes with softfeed[test]")
given, st = hypothesis.given, hypothesis.strategies

FEATURES = {
    "image/encoded": "byte",
    "image/class/label": "int",
    "image/class/text": "byte",
    "image/filename": "byte",
    "image/format": "byte",
    "image/height": "int",
    "image/width": "int",
}


def _sample(key=0, image=b"\xff\xd8 pixels", label=3, **changes):
    sample = StoredSample(key, image, "jpg", label, "größe", f"cats/{key} a.jpg", 480, 640)
    return sample._replace(**changes)


def _write(path, *samples):
    writer = ShardWriter(ShardFile(path))
    return [writer.add(sample) for sample in samples], writer.finish(), writer.index_text()


def test_masked_checksum_is_that_of_the_format():
    """CRC-32C of "123456789" is 0xe3069283 (RFC 3720, B.4); rotated by 15 bits and shifted, by hand."""
    rotated = (0xE3069283 >> 15 | 0xE3069283 << 17) & 0xFFFFFFFF
    assert masked_crc(b"1234", b"", b"56789") == struct.pack("<I", (rotated + 0xA282EAD8) % 2**32)
    assert google_crc32c.implementation == "c"  # the one in Python would make conversion slow


@pytest.mark.parametrize("size", [0, 1, 100, 127, 128, 16383, 16384, 300000])
def test_messages_are_those_of_protobuf(tmp_path, size):
    sample = _sample(image=bytes(range(256)) * (size // 256) + bytes(size % 256), label=70000)
    ((placed,), _, _) = _write(tmp_path / "a", sample)
    data = (tmp_path / "a").read_bytes()
    message = example_pb2.Example()
    message.ParseFromString(data[12:-4])
    assert message.SerializeToString(deterministic=True) == data[12:-4]
    values = {name: feature for name, feature in message.features.feature.items()}
    assert set(values) == set(FEATURES)
    assert values["image/encoded"].bytes_list.value[:] == [sample.image]
    assert values["image/class/label"].int64_list.value[:] == [70000]
    assert values["image/class/text"].bytes_list.value[:] == ["größe".encode()]
    assert values["image/filename"].bytes_list.value[:] == [b"cats/0 a.jpg"]
    assert values["image/format"].bytes_list.value[:] == [b"JPEG"]
    assert [values[f"image/{side}"].int64_list.value[:] for side in ("height", "width")] == [[480], [640]]
    for place, value in ((placed.image, sample.image), (placed.name, sample.name.encode())):
        assert data[place.offset : place.offset + place.size] == value


def test_index_has_whole_records(tmp_path):
    _, summary, index = _write(tmp_path / "a", _sample(image=b"x" * 1000), _sample(1, b"y"))
    data = (tmp_path / "a").read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    assert index == f"0 {length + 16}\n{length + 16} {len(data) - length - 16}\n"
    assert (summary.bytes, summary.crc32) == (len(data), zlib.crc32(data))


@pytest.mark.parametrize(("extension", "name"), [("jpg", b"JPEG"), ("png", b"PNG"), ("rgb", b"raw"), ("webp", b"WEBP")])
def test_the_tfrecord_package_reads_it(tmp_path, extension, name):
    samples = [_sample(key, bytes([key]) * key, key, extension=extension) for key in range(1, 5)]
    _, _, index = _write(tmp_path / "a.tfrecord", *samples)
    (tmp_path / "a.idx").write_text(index)
    for index_path in (None, str(tmp_path / "a.idx")):
        read = list(tfrecord.tfrecord_loader(str(tmp_path / "a.tfrecord"), index_path, FEATURES))
        read.sort(key=lambda record: np.asarray(record["image/class/label"]).item())  # an index is begun anywhere
        assert [bytes(record["image/encoded"]) for record in read] == [sample.image for sample in samples]
        assert [np.asarray(record["image/class/label"]).item() for record in read] == [1, 2, 3, 4]
        assert {bytes(record["image/format"]) for record in read} == {name}


def _contents(path, columns=USUAL):
    with FileReader(path) as read:
        return [contents(entry, read, columns) for entry in scan(path)]


def test_what_is_written_is_read(tmp_path):
    samples = [_sample(), _sample(1, b"", 0), _sample(2, b"z" * 70000, 2**31 - 1, class_name="", name="n")]
    placed, _, _ = _write(tmp_path / "a", *samples)
    found = _contents(tmp_path / "a")
    assert [content.image for (content,) in found] == [place.image for place in placed]
    assert [(content.label, content.class_name, content.name) for (content,) in found] == [
        (3, "größe", "cats/0 a.jpg"),
        (0, "größe", "cats/1 a.jpg"),
        (2**31 - 1, None, "n"),
    ]
    data = (tmp_path / "a").read_bytes()
    assert [unwrap(data[entry.offset : entry.offset + entry.size]) for entry in scan(tmp_path / "a")] == [
        sample.image for sample in samples
    ]


def _problem(path, data):
    path.write_bytes(data)
    *_, last = scan(path)
    assert isinstance(last, Problem)
    assert last.is_end
    return last


def test_a_scan_believes_no_length(tmp_path):
    _write(tmp_path / "a", _sample(), _sample(1))
    data = (tmp_path / "a").read_bytes()
    second = len(data) // 2
    absurd = struct.pack("<Q", 2**63)
    for damaged, offset, words in (
        (data[:-1], second, "reaches beyond the end of the file, which was cut short"),
        (data[: second + 5], second, "ends in the middle of a record's length"),
        (data[:second] + b"\1" + data[second + 1 :], second, "got a length with another checksum"),
        (data + absurd + masked_crc(absurd) + bytes(100), len(data), f"record of {2**63 + 16} bytes reaches beyond"),
        (zlib.compress(data), 0, "another checksum; it is compressed"),
        (b"\x1f\x8b" + data, 0, "another checksum; it is compressed"),
        (b"not a record at all", 0, "another checksum"),
    ):
        problem = _problem(tmp_path / "b", damaged)
        assert problem.offset == offset
        assert words in problem.reason
    (tmp_path / "empty").write_bytes(b"")
    assert list(scan(tmp_path / "empty")) == []


@given(st.integers(0, 10**6), st.integers(0, 7))
def test_any_flipped_bit_of_a_record_is_noticed(position, bit):
    payload = _message(_feature("image/encoded", 1, _delimited(1, b"pixels" * 20)))
    length = struct.pack("<Q", len(payload))
    record = bytearray(length + masked_crc(length) + payload + masked_crc(payload))
    assert unwrap(bytes(record)) == b"pixels" * 20
    record[position % len(record)] ^= 1 << bit
    with pytest.raises(ValueError, match=r"checksum|cut short"):
        unwrap(bytes(record))


def _delimited(number, data):
    size, digits = len(data), bytearray()
    while size > 127:
        digits.append(size & 127 | 128)
        size >>= 7
    return bytes([number << 3 | 2]) + bytes([*digits, size]) + data


def _feature(name, kind, value):
    return _delimited(1, _delimited(1, name.encode()) + _delimited(2, _delimited(kind, value)))


def _message(*features):
    return _delimited(1, b"".join(features))


def _parsed(data):
    return example(lambda offset, size: data[offset : offset + size], 0, len(data))


@given(st.binary(max_size=300))
def test_any_bytes_are_parsed_or_refused(data):
    try:
        features = _parsed(data)
    except ValueError:
        return
    for feature in features.values():
        assert all(0 <= place.offset <= place.offset + place.size <= len(data) for place in feature.places)


@given(
    st.dictionaries(
        st.text(max_size=20),
        st.one_of(
            st.lists(st.binary(max_size=40), max_size=5),
            st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=5),
            st.lists(st.floats(width=32), min_size=1, max_size=5),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_messages_of_protobuf_are_parsed(features):
    message = example_pb2.Example()
    for name, values in features.items():
        kind = {bytes: "bytes_list", int: "int64_list", float: "float_list"}[type(values[0]) if values else bytes]
        getattr(message.features.feature[name], kind).value.extend(values)
    data = message.SerializeToString()
    found = _parsed(data)
    assert set(found) == set(features)
    for name, values in features.items():
        stored = [data[place.offset : place.offset + place.size] for place in found[name].places]
        expected = values if not values or isinstance(values[0], bytes) else []
        assert stored == expected
        assert list(found[name].integers) == (values if values and isinstance(values[0], int) else [])


def test_unpacked_integers_are_read():
    unpacked = b"\x08\x05"  # field 1 as a varint of its own, as protobuf 2 wrote lists
    assert _parsed(_message(_feature("a", 3, unpacked)))["a"].integers == (5,)


@pytest.mark.parametrize(
    ("features", "words"),
    [
        ([_feature("image/encoded", 1, _delimited(1, b"x"))], "must have the feature 'image/class/label' or 'label'"),
        ([_feature("label", 3, b"\x08\x01")], "must have the feature 'image/encoded' or 'image', got label"),
        (
            [_feature("image", 1, _delimited(1, b"x") * 2), _feature("label", 3, b"\x08\x01")],
            "image of a record must be one bytes value, got 2",
        ),
        (
            [_feature("image", 1, _delimited(1, b"x")), _feature("label", 3, b"\x08\x01\x08\x02")],
            r"label of a record must be one int64, got \(1, 2\)",
        ),
        (
            [_feature("image", 1, _delimited(1, b"x")), _feature("label", 2, _delimited(1, bytes(4)))],
            "label of a record must be one int64, got another type",
        ),
        ([_feature(f"{row}", 1, b"") for row in range(5000)], "must have at most 4096 fi?e?a?t?"),
        ([_feature("x" * 2000, 1, b"")], "name of a feature must be at most 1024 bytes, got 2000"),
        ([], "must be a tf.train.Example with features, got none"),
    ],
)
def test_records_that_are_no_samples_are_refused(tmp_path, features, words):
    payload = _message(*features)
    length = struct.pack("<Q", len(payload))
    (tmp_path / "a").write_bytes(length + masked_crc(length) + payload + masked_crc(payload))
    (entry,) = scan(tmp_path / "a")
    assert isinstance(entry, Entry)
    with pytest.raises(ValueError, match=words), FileReader(tmp_path / "a") as read:
        contents(entry, read, Columns())


@pytest.mark.parametrize(("kind", "lists"), [(1, 400), (3, 400)])
def test_no_more_values_are_read_than_are_taken(kind, lists):
    values = (_delimited(1, b"") if kind == 1 else b"\x08\x05") * 1000
    data = _message(_delimited(1, _delimited(1, b"a") + _delimited(2, _delimited(kind, values) * lists)))
    reads = []

    def read(offset, size):
        reads.append(offset)
        return data[offset : offset + size]

    feature = example(read, 0, len(data))["a"]
    assert (len(feature.places), len(feature.integers)) == ((16, 0) if kind == 1 else (0, 16))
    assert len(reads) < lists + 40


def test_values_of_several_lists_are_taken_together():
    lists = _delimited(1, _delimited(1, b"x") * 10) * 2 + _delimited(3, b"\x08\x05" * 3) * 2
    assert _parsed(_message(_delimited(1, _delimited(1, b"a") + _delimited(2, lists))))["a"].integers == (5,) * 6
    lists = _delimited(3, b"\x08\x05" * 3) + _delimited(1, _delimited(1, b"x") * 10) * 2
    places = _parsed(_message(_delimited(1, _delimited(1, b"a") + _delimited(2, lists))))["a"].places
    assert len({place.offset for place in places}) == 16
