from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from softfeed.pipelines.shards.sources.opening import FolderSource, SourceOptions, open_source
from softfeed.pipelines.shards.sources.parquet import _class_names
from softfeed.pipelines.shards.sources.spool import _binary


def _images(source, work):
    """Every image of a source, through its extents."""
    work.mkdir()
    files, file, offset, size, *_ = source.extents(work, None, lambda done, total: None)
    content = []
    for number, start, length in zip(file, offset, size, strict=True):
        content.append(Path(files[number]).read_bytes()[start : start + length])
    return content


def test_reads_images_labels_names_and_classes(parquet_file, encoded, tmp_path):
    images = [encoded(seed) for seed in range(8)]
    path = parquet_file(images=images, labels=[0, 2, 1, 0, 1, 2, 2, 0], names=["ant", "bee", "cat", "dog"])
    source = open_source(path)
    assert source.classes == ("ant", "bee", "cat", "dog")
    np.testing.assert_array_equal(source.labels, [0, 2, 1, 0, 1, 2, 2, 0])
    assert source.names([0, 7]) == [f"{path.name}/0", f"{path.name}/7"]
    assert _images(source, tmp_path / "work") == images


def test_several_files_of_one_split_are_one_source(parquet_file, encoded, tmp_path):
    images = [encoded(seed) for seed in range(7)]
    parquet_file("train-00001-of-00002.parquet", images=images[4:], labels=[1, 1, 1])
    path = parquet_file("train-00000-of-00002.parquet", images=images[:4], labels=[0, 0, 0, 0])
    parquet_file("test-00000-of-00001.parquet", images=images[:1], labels=[0])
    source = open_source(path.parent, SourceOptions(split="train"))
    np.testing.assert_array_equal(source.labels, [0, 0, 0, 0, 1, 1, 1])
    assert source.names([3, 4]) == ["train-00000-of-00002.parquet/3", "train-00001-of-00002.parquet/0"]
    assert source.classes == ("0", "1")
    assert _images(source, tmp_path / "work") == images


def test_plain_binary_and_missing_values(tmp_path, encoded):
    for kind in (pa.binary(), pa.large_binary()):
        path = tmp_path / "plain.parquet"
        images = [encoded(0), None, b"", encoded(1)]
        pq.write_table(pa.table({"image": pa.array(images, kind), "label": pa.array([0, 0, 1, 1], pa.uint8())}), path)
        source = open_source(path)
        assert _images(source, tmp_path / f"work-{kind}") == [encoded(0), b"", b"", encoded(1)]


def test_row_groups_of_many_batches(tmp_path, encoded):
    images = [f"{row:05d}".encode() * (row % 7) for row in range(1000)]
    path = tmp_path / "many.parquet"
    columns = {"image": pa.array([{"bytes": image} for image in images]), "label": pa.array([0] * 1000)}
    pq.write_table(pa.table(columns), path, row_group_size=700)
    assert _images(open_source(path), tmp_path / "work") == images


@pytest.mark.parametrize("gap", [None, b""])
@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_slices_of_a_column_are_cut_out(kind, gap):
    column = pa.array([b"zero", b"one", gap, b"three", b"four"], kind).slice(1, 3)
    content, offsets = _binary(column)
    assert (bytes(content), np.diff(offsets).tolist()) == (b"onethree", [3, 0, 5])


def test_label_column_is_the_fine_one_unless_named(parquet_file, encoded):
    coarse = pa.array([1, 1], pa.int64())
    path = parquet_file(images=[encoded(0)] * 2, labels=[4, 5], coarse_label=coarse)
    np.testing.assert_array_equal(open_source(path).labels, [4, 5])
    np.testing.assert_array_equal(open_source(path, SourceOptions(label_column="coarse_label")).labels, [1, 1])


def test_splits_must_be_named(parquet_file, encoded):
    for split in ("train", "test"):
        path = parquet_file(f"{split}-00000-of-00001.parquet", images=[encoded(0)], labels=[0])
    with pytest.raises(ValueError, match=r"split must be named \(--split NAME\), got none; .* several: test, train"):
        open_source(path.parent)
    with pytest.raises(ValueError, match=r"split must be one that .* holds \(test, train\), got 'valid'"):
        open_source(path.parent, SourceOptions(split="valid"))


@pytest.mark.parametrize("name", ["train/0000.parquet", "data/train-00000-of-00001-a1b2.parquet", "train.parquet"])
def test_splits_are_found_in_file_and_folder_names(parquet_file, encoded, name):
    root = parquet_file("test.parquet", images=[encoded(0)], labels=[0]).parent
    parquet_file(name, images=[encoded(0)] * 3, labels=[0, 1, 2])
    assert len(open_source(root, SourceOptions(split="train")).labels) == 3


@pytest.mark.parametrize(
    ("labels", "names", "options", "message"),
    [
        (
            [0, 1],
            None,
            {"image_column": "pixels"},
            r"image_column must be a column of .* \(fine_label, img\), got 'pi",
        ),
        (
            [0, 1],
            None,
            {"label_column": "y"},
            r"label_column must be a column of .*, got 'y'; name it with --label-",
        ),
        ([0, 1], None, {"image_column": "fine_label"}, r"image_column must hold encoded images .* of type int64"),
        ([0, 1], None, {"label_column": "img"}, r"label_column must hold integers, got 'img' of type struct"),
        ([0, None], None, {}, r"label_column must have no gaps, got 1 missing 'fine_label'"),
        ([0, -1], None, {}, r"labels must be 0 or more, got -1 in row 1 of .*; this split has no labels"),
        ([0, 3], ["ant", "bee"], {}, r"labels must be in \[0, 2\), the classes that .* names, got 3"),
        (
            [0, 1_000_000],
            None,
            {},
            r"labels must number the classes, below 1000000 for 2 rows .*, got 1000000 in 'fine_label' of .*; name the",
        ),
        ([0, 2**31], None, {}, r"labels must number the classes, below 1000000 for 2 rows .*, got 2147483648"),
        ([0, 2**31], ["ant", "bee"], {}, r"labels must be in \[0, 2\), the classes that .* names, got 2147483648"),
        ([], None, {}, "source must hold images, got no row"),
    ],
)
def test_refuses_columns_that_do_not_fit(parquet_file, encoded, labels, names, options, message):
    path = parquet_file(images=[encoded(0)] * len(labels), labels=labels, names=names)
    with pytest.raises(ValueError, match=message):
        open_source(path, SourceOptions(**options))


def test_few_rows_may_have_great_labels(parquet_file, encoded):
    assert len(open_source(parquet_file(images=[encoded(0)] * 2, labels=[5, 20_000])).classes) == 20_001


@pytest.mark.parametrize(("rows", "limit"), [(150_000, 1_500_000), (3 * 10**8, 2**31)])
def test_the_greatest_label_grows_with_the_rows(rows, limit, tmp_path):
    def names(greatest):
        labels = np.broadcast_to(np.int64(greatest), (rows,))  # no memory of its own
        return _class_names(pa.schema([("label", pa.int64())]), "label", labels, tmp_path)

    if limit < 2**31:
        assert len(names(limit - 1)) == limit
    with pytest.raises(ValueError, match=f"below {limit} for {rows} rows"):
        names(limit)


def test_refuses_a_file_without_the_usual_columns(tmp_path):
    path = tmp_path / "numbers.parquet"
    pq.write_table(pa.table({"x": [1], "y": [2]}), path)
    with pytest.raises(ValueError, match=r"image_column must be a column of .* \(x, y\), got one of image, img"):
        open_source(path)


def test_refuses_files_with_different_columns(parquet_file, encoded):
    parquet_file("train-00000-of-00002.parquet", images=[encoded(0)], labels=[0])
    path = parquet_file("train-00001-of-00002.parquet", images=[encoded(0)], labels=[0], columns=("image", "label"))
    with pytest.raises(ValueError, match=r"must have one schema, got another in .*00001-of"):
        open_source(path.parent)


def test_refuses_what_is_no_source(parquet_file, encoded, tmp_path):
    cut = parquet_file(images=[encoded(0)], labels=[0])
    cut.write_bytes(cut.read_bytes()[:-30])
    with pytest.raises(ValueError, match=r"Parquet file must be whole, got .*; download it again"):
        open_source(cut)
    text = tmp_path / "list.csv"
    text.write_text("a,b")
    with pytest.raises(ValueError, match=r"must be a folder or a file of a known format, got .*list.csv"):
        open_source(text)
    with pytest.raises(FileNotFoundError, match=r"source must exist, got .*nowhere"):
        open_source(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"must hold \*.parquet files, got none"):
        open_source(tmp_path / "empty", SourceOptions("parquet"))
    with pytest.raises(ValueError, match=r"source_format must be one of auto, folder, parquet, .*, got 'zip'"):
        open_source(tmp_path, SourceOptions("zip"))


def test_folders_take_no_parquet_options(image_folder):
    root = image_folder()
    assert isinstance(open_source(root), FolderSource)
    with pytest.raises(ValueError, match="split must be left out for an image folder, got 'train'"):
        open_source(root, SourceOptions(split="train"))
