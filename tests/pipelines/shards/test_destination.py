import os

import pytest
from softfeed.pipelines.shards import destination
from softfeed.pipelines.shards.convert import convert
from softfeed.pipelines.shards.destination import claimed
from softfeed.pipelines.shards.layout import ShardOptions
from softfeed.pipelines.shards.shard_set import load
from softfeed.pipelines.shards.verification.survey import shard_files


def test_a_finished_set_is_replaced_only_on_request(tmp_path, image_folder, content):
    source, dest = image_folder(), tmp_path / "set"
    convert(source, dest, workers=1)
    before = content(dest)
    with pytest.raises(FileExistsError, match=r"got a finished shard set in .*set; --overwrite replaces it"):
        convert(source, dest, ShardOptions(seed=1), workers=1)
    assert content(dest) == before
    convert(source, dest, ShardOptions(seed=1, shard_samples=4), workers=1, overwrite=True)
    assert load(dest).manifest.created["seed"] == 1
    convert(source, dest, workers=1, overwrite=True)
    assert content(dest) == before  # nothing of the larger set in between is left


def test_overwriting_trusts_nothing_that_is_there(tmp_path, image_folder, content):
    source, dest = image_folder(), tmp_path / "set"
    convert(source, dest, workers=1)
    before = content(dest)
    tar = dest / "shard-000000.tar"
    tar.write_bytes(bytes(len(before[tar.name])))
    assert convert(source, dest, workers=1, overwrite=True).written == 12
    assert content(dest) == before


def _killed_at_the_end(source, dest, monkeypatch):
    """A finished set whose work folder was not removed any more."""
    with monkeypatch.context() as patch:
        patch.setattr("softfeed.pipelines.shards.convert.release", lambda work: None)
        convert(source, dest, workers=1)
    assert (dest / ".partial").exists()


def test_overwriting_does_not_trust_records_that_were_left(tmp_path, image_folder, content, monkeypatch):
    source, dest = image_folder(), tmp_path / "set"
    _killed_at_the_end(source, dest, monkeypatch)
    tar = dest / "shard-000000.tar"
    whole = tar.read_bytes()
    tar.write_bytes(bytes(len(whole)))
    convert(source, dest, workers=1, overwrite=True)
    assert tar.read_bytes() == whole


def test_a_set_that_was_killed_at_the_end_is_finished_and_swept(tmp_path, image_folder, monkeypatch):
    source, dest = image_folder(), tmp_path / "set"
    _killed_at_the_end(source, dest, monkeypatch)
    assert len(load(dest).samples) == 12
    with pytest.raises(FileExistsError, match="got a finished shard set"):
        convert(source, dest, workers=1)
    assert not (dest / ".partial").exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_folders_of_others_are_refused(tmp_path, image_folder, overwrite):
    source, dest = image_folder(), tmp_path / "theirs"
    dest.mkdir()
    (dest / "thesis.tex").write_text("precious")
    with pytest.raises(FileExistsError, match=r"got 1 entries in .*theirs \(first: thesis.tex\); name another folder"):
        convert(source, dest, workers=1, overwrite=overwrite)
    (dest / "dataset.json").write_text('{"title": "precious"}')
    with pytest.raises(FileExistsError, match=r"got a dataset.json of something else in .*theirs"):
        convert(source, dest, workers=1, overwrite=overwrite)
    assert sorted(path.name for path in dest.iterdir()) == ["dataset.json", "thesis.tex"]


def test_a_file_as_destination_is_refused(tmp_path, image_folder):
    source = image_folder()
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileExistsError, match=r"destination must be a folder, got the file .*file"):
        convert(source, tmp_path / "file", workers=1)


@pytest.mark.parametrize("inside", [".", "shards", "class0/shards"])
def test_a_destination_in_the_source_is_refused(image_folder, inside):
    source = image_folder()
    with pytest.raises(ValueError, match=r"destination must not lie in the source .*images, got"):
        convert(source, source / inside, workers=1)
    assert not (source / "shards").exists()


def test_two_conversions_do_not_share_a_destination(tmp_path, image_folder):
    source, dest = image_folder(), tmp_path / "set"
    with (
        claimed(dest, source=source, overwrite=False),
        pytest.raises(BlockingIOError, match="must have one writer, got another softfeed convert at work"),
    ):
        convert(source, dest, workers=1)
    convert(source, dest, workers=1)


def test_missing_parents_of_the_destination_are_made(tmp_path, image_folder):
    convert(image_folder(), tmp_path / "a" / "b" / "set", workers=1)
    assert len(load(tmp_path / "a" / "b" / "set").samples) == 12


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_source_in_the_destination_is_refused(tmp_path, image_folder, content, overwrite):
    convert(image_folder(), tmp_path / "set", workers=1)
    before = content(tmp_path / "set")
    with pytest.raises(ValueError, match=r"source must not lie in the destination .*set, got .*shard-000000.tar"):
        convert(tmp_path / "set" / "shard-000000.tar", tmp_path / "set", workers=1, overwrite=overwrite)
    assert content(tmp_path / "set") == before


def test_a_set_finished_while_its_folder_was_looked_at_stays(tmp_path, image_folder, content, monkeypatch):
    source, dest = image_folder(), tmp_path / "set"

    def finished_behind(dest, *, overwrite):
        with monkeypatch.context() as patch:
            patch.setattr(destination, "require_free", before)
            convert(source, dest, workers=1)

    before = destination.require_free
    monkeypatch.setattr(destination, "require_free", finished_behind)
    with pytest.raises(FileExistsError, match="got a finished shard set"):
        convert(source, dest, ShardOptions(seed=7), workers=1)
    assert load(dest).manifest.created["seed"] == 0
    assert not (dest / ".partial").exists()


def test_a_folder_removed_while_it_was_locked_is_held_by_nobody(tmp_path, monkeypatch):
    work = tmp_path / ".partial"
    work.mkdir()
    lock = destination.fcntl.flock
    monkeypatch.setattr(destination.fcntl, "flock", lambda *a: (work.rmdir(), lock(*a)))
    with pytest.raises(BlockingIOError, match="must have one writer"), destination.locked(work, tmp_path):
        pass


def test_shards_from_the_millionth_on_are_known(tmp_path, image_folder):
    names = ["shard-000001.tar", "shard-999999.tar", "shard-1000000.tar"]
    for name in reversed(names):
        (tmp_path / name).touch()
    assert shard_files(tmp_path) == names
    assert all(destination._OURS.fullmatch(name) for name in [*names, "shard-1000000.idx"])


def test_class_names_that_the_manifest_cannot_hold_are_refused_at_once(tmp_path, image_folder):
    source = image_folder()
    (source / "class0").rename(os.fsdecode(os.fsencode(source) + b"/caf\xe9"))
    with pytest.raises(ValueError, match=r"class names must be UTF-8, got 'caf.udce9' in .*images; rename it"):
        convert(source, tmp_path / "set", workers=1)
    assert not (tmp_path / "set").exists()
