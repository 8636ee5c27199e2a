"""Existing sets as sources: softfeed's own in every format, and those of other programs, good and bad."""

import io
import json
import struct
import tarfile

import pytest
from softfeed.pipelines.shards.containers.formats import CONTAINERS
from softfeed.pipelines.shards.convert import convert
from softfeed.pipelines.shards.layout import ShardOptions
from softfeed.pipelines.shards.shard_set import load
from softfeed.pipelines.shards.sources.opening import SourceOptions, open_source

tfrecord = pytest.importorskip("tfrecord", reason="tfrecord is not installed; it comes with softfeed[test]")

FORMATS = tuple(CONTAINERS)
MAGIC = struct.pack("<I", 0xCED7230A)


def _samples(folder, read_samples):
    return sorted(read_samples(load(folder)))


def _converted(source, dest, **options):
    reading = options.pop("reading", SourceOptions())
    max_bad = options.pop("max_bad", None)
    return convert(open_source(source, reading), dest, ShardOptions(**options), workers=1, max_bad=max_bad)


@pytest.mark.parametrize("first", FORMATS)
@pytest.mark.parametrize("second", FORMATS)
def test_any_format_turns_into_any_other(tmp_path, image_folder, read_samples, first, second):
    source = image_folder(classes=3, each=4)
    for path in source.glob("class1/*"):  # RecordIO splits these; bytes behind a PNG's end are legal
        path.write_bytes(path.read_bytes() + bytes(-path.stat().st_size % 4) + MAGIC * 2 + b"end")
    (source / "class1" / "003.png").rename(source / "class1" / "two words größe v1.3.png")
    _converted(source, tmp_path / "first", format=first, shard_samples=5)
    outcome = _converted(tmp_path / "first", tmp_path / "second", format=second, shard_samples=7, seed=3)
    assert outcome.manifest.created["source_format"] == first
    assert outcome.manifest.classes == ("class0", "class1", "class2")
    expected = sorted(
        (str(path.relative_to(source)), int(path.parent.name[-1]), path.read_bytes()) for path in source.rglob("*.png")
    )
    assert _samples(tmp_path / "second", read_samples) == expected


@pytest.mark.parametrize("name", FORMATS)
def test_raw_sets_stay_raw(tmp_path, image_folder, read_samples, name):
    _converted(image_folder(size=(6, 4)), tmp_path / "first", format=name, raw=True)
    for other in FORMATS:
        made = _converted(tmp_path / "first", tmp_path / other, format=other).manifest
        assert (made.encoding, made.raw_shape, made.format) == ("raw", (4, 6, 3), other)
        assert _samples(tmp_path / other, read_samples) == _samples(tmp_path / "first", read_samples)


@pytest.mark.parametrize("name", FORMATS)
def test_an_interrupted_conversion_of_a_set_goes_on(tmp_path, image_folder, content, monkeypatch, name):
    _converted(image_folder(), tmp_path / "first", format=name)
    with monkeypatch.context() as patch:
        patch.setattr("softfeed.pipelines.shards.assembly.manifest.write", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            _converted(tmp_path / "first", tmp_path / "set", format=name, shard_samples=3)
    assert _converted(tmp_path / "first", tmp_path / "set", format=name, shard_samples=3).written == 0
    _converted(tmp_path / "first", tmp_path / "whole", format=name, shard_samples=3)
    assert content(tmp_path / "set") == content(tmp_path / "whole")


def _tar(path, members, **settings):
    """A tar of `(name, data)`, or of `TarInfo` objects, with Python's tarfile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **settings) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
                continue
            info = tarfile.TarInfo(member[0])
            info.size = len(member[1])
            tar.addfile(info, io.BytesIO(member[1]))
    return path


FOREIGN = {
    "digits": lambda label: ("cls", str(label).encode()),
    "padded digits": lambda label: ("cls", b" %d\n" % label),
    "int32": lambda label: ("label", struct.pack("<i", label)),
    "json": lambda label: ("json", json.dumps({"label": label, "caption": "a cat"}).encode()),
    "json number": lambda label: ("json", str(label).encode()),
}


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("style", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tars_of_other_programs(tmp_path, encoded, read_samples, kind, style):
    images = [encoded(row, kind="JPEG") for row in range(5)]
    stem = "train/" + "x" * (20 if style == tarfile.USTAR_FORMAT else 200)  # long names: GNU and PAX headers
    members = []
    for row, image in enumerate(images):
        extension, label = FOREIGN[kind](row % 3)
        members += [(f"{stem}/{row}.JPG", image), (f"{stem}/{row}.{extension}", label), (f"{stem}/{row}.txt", b"hello")]
    _tar(tmp_path / "source" / "train-0000.tar", members[:9], format=style)
    _tar(tmp_path / "source" / "train-0001.tar", members[9:], format=style)
    made = _converted(tmp_path / "source", tmp_path / "set").manifest
    assert (made.created["source_format"], made.classes) == ("webdataset", ("0", "1", "2"))
    expected = [(f"train-000{row // 3}.tar/{stem}/{row}.JPG", row % 3, image) for row, image in enumerate(images)]
    assert _samples(tmp_path / "set", read_samples) == sorted(expected)


def test_stems_with_dots_are_told_apart(tmp_path, encoded, read_samples):
    """DALI takes all of these for one sample, since a stem ends at the first dot."""
    members = []
    for row in range(4):
        members += [(f"img.v1.{row}.jpg", encoded(row, kind="JPEG")), (f"img.v1.{row}.cls", b"%d" % row)]
    _converted(_tar(tmp_path / "a.tar", members), tmp_path / "set")
    read = _samples(tmp_path / "set", read_samples)
    assert [(name, label) for name, label, _ in read] == [(f"a.tar/img.v1.{row}.jpg", row) for row in range(4)]
    assert [image for _, _, image in read] == [data for name, data in members if name.endswith("jpg")]


def test_several_images_of_a_sample_need_a_name(tmp_path, encoded, read_samples):
    pair = [("0.jpg", encoded(0, kind="JPEG")), ("0.seg.png", encoded(1)), ("0.png", encoded(2)), ("0.cls", b"0")]
    path = _tar(tmp_path / "a.tar", pair)
    with pytest.raises(ValueError, match=r"sample '0' must have one image, got 2 .*\.jpg, \.seg\.png, \.png, \.cls"):
        open_source(path, SourceOptions("webdataset"))
    for column, image in (("jpg", 0), ("JPG", 0), ("seg.png", 1)):
        _converted(path, tmp_path / column, reading=SourceOptions("webdataset", image_column=column))
        assert _samples(tmp_path / column, read_samples)[0][2] == pair[image][1]


def _info(name, kind, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        (_info("1.jpg", tarfile.SYMTYPE, "/etc/passwd"), "'1.jpg' is a symbolic link, not a file"),
        (_info("1.jpg", tarfile.LNKTYPE, "0.jpg"), "'1.jpg' is a hard link, not a file"),
        (_info("1.jpg", tarfile.CHRTYPE), "a character device"),
        (_info("1.jpg", tarfile.BLKTYPE), "a block device"),
        (_info("1.jpg", tarfile.FIFOTYPE), "a pipe"),
        (("/etc/1.jpg", b"x"), "'/etc/1.jpg' leads out of the folder"),
        (("a/../../1.jpg", b"x"), "'a/../../1.jpg' leads out of the folder"),
        (("0.cls", b"1"), "members of sample '0' must be consecutive, got others between them"),
    ],
)
def test_odd_members_are_refused_and_write_nothing(tmp_path, encoded, member, reason):
    before = sorted(tmp_path.rglob("*"))
    sample = [("0.jpg", encoded(0, kind="JPEG")), ("0.cls", b"0")]
    path = _tar(tmp_path / "source" / "a.tar", [*sample, ("5.jpg", sample[0][1]), ("5.cls", b"0"), member])
    with pytest.raises(ValueError, match=rf"must be whole and plain, got .*a.tar with this at byte \d+: .*{reason}"):
        convert(path.parent, tmp_path / "set", workers=1)
    assert sorted(tmp_path.rglob("*")) == sorted([*before, path, path.parent])


def test_a_sample_without_a_label_is_named(tmp_path, encoded):
    members = [("0.jpg", encoded(0)), ("0.cls", b"0"), ("1.jpg", encoded(1))]
    with pytest.raises(ValueError, match=r"sample '1' must have a label .*, got none; .*, at byte \d+ of .*a.tar"):
        open_source(_tar(tmp_path / "a.tar", members))
    members[1] = ("0.cls", b"cat")
    with pytest.raises(ValueError, match=r"label of sample '0' must be a whole number in .cls, got b'cat'"):
        open_source(_tar(tmp_path / "b.tar", members), SourceOptions("webdataset"))


def _records(path, features, name="train-00000-of-00001"):
    """A TFRecord file written by the tfrecord package."""
    path.mkdir()
    writer = tfrecord.TFRecordWriter(str(path / name))
    for feature in features:
        writer.write(feature)
    writer.close()
    return path


@pytest.mark.parametrize(
    ("image", "label", "more", "name"),
    [
        ("image/encoded", "image/class/label", {"image/filename": (b"n01/7.JPEG", "byte")}, "n01/7.JPEG"),
        ("image", "label", {"scores": ([0.5, 0.25], "float")}, "train-00000-of-00001/{row}"),
    ],
)
def test_tfrecords_of_other_programs(tmp_path, encoded, read_samples, image, label, more, name):
    images = [encoded(row, kind="JPEG") for row in range(4)]
    features = [{image: (data, "byte"), label: (row, "int"), **more} for row, data in enumerate(images)]
    source = _records(tmp_path / "source", features)
    made = _converted(source, tmp_path / "set").manifest
    assert made.created["source_format"] == "tfrecord"
    expected = sorted((name.format(row=row), row, data) for row, data in enumerate(images))
    assert _samples(tmp_path / "set", read_samples) == expected


def test_tfrecord_features_of_other_names(tmp_path, encoded, read_samples):
    source = _records(tmp_path / "source", [{"jpeg": (encoded(0), "byte"), "kind": (2, "int")}])
    with pytest.raises(ValueError, match=r"must have the feature 'image/encoded' or 'image', got jpeg, kind"):
        open_source(source)
    _converted(source, tmp_path / "set", reading=SourceOptions(image_column="jpeg", label_column="kind"))
    assert _samples(tmp_path / "set", read_samples) == [("train-00000-of-00001/0", 2, encoded(0))]


def test_class_names_come_from_tfrecords(tmp_path, encoded):
    features = [
        {
            "image/encoded": (encoded(row), "byte"),
            "image/class/label": (label, "int"),
            "image/class/text": (text, "byte"),
        }
        for row, (label, text) in enumerate([(2, b"cat"), (1, b"dog"), (2, b"cat")])
    ]
    assert open_source(_records(tmp_path / "source", features)).classes == ("0", "dog", "cat")
    features[0]["image/class/text"] = (b"a cat on a mat", "byte")
    assert open_source(_records(tmp_path / "captions", features)).classes == ("0", "1", "2")


def _bytes_of(folder):
    return next(path for path in folder.iterdir() if path.suffix in (".tfrecord", ".rec", ".tar"))


def test_a_wrong_payload_checksum_sets_the_image_aside(tmp_path, image_folder, read_samples):
    """DALI never looks at these checksums, and an image damaged in its middle may still decode."""
    _converted(image_folder(classes=1, each=4, kind="JPEG", size=(200, 200)), tmp_path / "first", format="tfrecord")
    shards = load(tmp_path / "first")
    path = shards.shard_paths[0]
    data = bytearray(path.read_bytes())
    data[int(shards.samples["offset"][2] + shards.samples["size"][2] // 2)] ^= 1
    source = tmp_path / "source"
    source.mkdir()
    (source / path.name).write_bytes(data)
    outcome = _converted(source, tmp_path / "set", max_bad=1)
    (bad,) = outcome.bad
    assert (bad.name, bad.reason) == (shards.sample_name(2), "record with another checksum than it says; damaged")
    assert _samples(tmp_path / "set", read_samples) == sorted(
        sample for row, sample in enumerate(read_samples(shards)) if row != 2
    )


def _recordio(path, records):
    """A RecordIO file as im2rec writes it: unescaped, whole records."""
    path.parent.mkdir(exist_ok=True)
    data = b""
    for labels, number, image in records:
        flag, label = (0, labels) if isinstance(labels, (int, float)) else (len(labels), 0.0)
        payload = struct.pack("<IfQQ", flag, label, number, 0)
        payload += struct.pack(f"<{flag}f", *labels) if flag else b""
        payload += image
        data += MAGIC + struct.pack("<I", len(payload)) + payload + bytes(-len(payload) % 4)
    path.write_bytes(data)
    return path


def test_recordio_of_im2rec(tmp_path, encoded, read_samples):
    images = [encoded(row, kind="JPEG") for row in range(5)]
    _recordio(tmp_path / "source" / "train.rec", [(float(row % 3), row, image) for row, image in enumerate(images)])
    made = _converted(tmp_path / "source", tmp_path / "set").manifest
    assert (made.created["source_format"], made.classes) == ("recordio", ("0", "1", "2"))
    assert _samples(tmp_path / "set", read_samples) == [
        (f"train.rec/{row}", row % 3, image) for row, image in enumerate(images)
    ]


def test_records_about_others_are_left_out(tmp_path, encoded, read_samples):
    """InsightFace begins with a record of two labels and ends with one per identity, none of which holds an image."""
    records = [([3.0, 5.0], 0, b""), (0.0, 1, encoded(1)), (1.0, 2, encoded(2)), ([1.0, 3.0], 3, b"")]
    _converted(_recordio(tmp_path / "a.rec", records), tmp_path / "set")
    assert _samples(tmp_path / "set", read_samples) == [("a.rec/1", 0, encoded(1)), ("a.rec/2", 1, encoded(2))]


def test_recordio_with_several_labels_needs_a_position(tmp_path, encoded, read_samples):
    path = _recordio(tmp_path / "a.rec", [([7.0, 1.0], 0, encoded(0))])
    with pytest.raises(ValueError, match=r"record must have one label, got 2; name its position with --label-column 0"):
        open_source(path)
    for position, label in (("0", 7), ("1", 1)):
        _converted(path, tmp_path / position, reading=SourceOptions(label_column=position))
        assert _samples(tmp_path / position, read_samples) == [("a.rec/0", label, encoded(0))]
    with pytest.raises(ValueError, match=r"label at position 2, got 2 labels"):
        open_source(path, SourceOptions(label_column="2"))


@pytest.mark.parametrize("label", [0.5, float("nan"), -1.0])
def test_recordio_labels_must_be_classes(tmp_path, encoded, label):
    with pytest.raises(ValueError, match=r"label must be .*, at byte 0 of .*a.rec"):
        open_source(_recordio(tmp_path / "a.rec", [(label, 0, encoded(0))]))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("share", [0.3, 0.7, 0.97])
def test_cut_files_are_refused(tmp_path, image_folder, name, share):
    _converted(image_folder(), tmp_path / "first", format=name)
    path = _bytes_of(tmp_path / "first")
    source = tmp_path / "source"
    source.mkdir()
    data = path.read_bytes().rstrip(b"\0") if name == "webdataset" else path.read_bytes()
    (source / path.name).write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ValueError, match=r"must be whole and plain, got .* at byte \d+: .*cut short"):
        open_source(source)


def test_splits_are_told_apart_by_names(tmp_path, encoded):
    for name in ("cats-train-0000", "cats-train-0001", "cats-validation-00"):
        _tar(tmp_path / "source" / f"{name}.tar", [("0.png", encoded(1)), ("0.cls", b"0")])
    with pytest.raises(ValueError, match=r"split must be named .*holds several: cats-train, cats-validation"):
        open_source(tmp_path / "source")
    assert len(open_source(tmp_path / "source", SourceOptions(split="cats-train")).labels) == 2
    with pytest.raises(ValueError, match=r"split must be one .* \(cats-train, cats-validation\), got 'dogs'"):
        open_source(tmp_path / "source", SourceOptions(split="dogs"))


@pytest.mark.parametrize("name", FORMATS)
def test_formats_are_detected(tmp_path, image_folder, name):
    _converted(image_folder(), tmp_path / "first", format=name)
    assert open_source(tmp_path / "first").format == name
    (tmp_path / "first" / "dataset.json").unlink()
    found = open_source(tmp_path / "first")
    assert (found.format, len(found.labels)) == (name, 12)
    with pytest.raises(FileNotFoundError, match=rf"source must hold {name} files .*, got none in .*images"):
        open_source(tmp_path / "images", SourceOptions(name))


def test_records_that_moved_behind_their_table_are_noticed(tmp_path, image_folder):
    _converted(image_folder(kind="JPEG"), tmp_path / "first", format="tfrecord")
    (path,) = load(tmp_path / "first").shard_paths
    records = [entry[:2] for entry in CONTAINERS["tfrecord"].scan(path)]
    assert len({size for _, size in records}) > 1
    data = path.read_bytes()
    path.write_bytes(b"".join(data[offset : offset + size] for offset, size in reversed(records)))
    with pytest.raises(ValueError, match="must hold the records that their table says"):
        open_source(tmp_path / "first")
