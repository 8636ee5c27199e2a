"""Sets damaged in thousands of ways: verify must name every one, and neither crash nor hang."""

import time
from contextlib import suppress

import numpy as np
import pytest
from softfeed.pipelines.shards.containers.formats import CONTAINERS
from softfeed.pipelines.shards.convert import convert
from softfeed.pipelines.shards.layout import ShardOptions
from softfeed.pipelines.shards.shard_set import load
from softfeed.pipelines.shards.verification.repair import repair
from softfeed.pipelines.shards.verification.verify import verify

MAGIC = b"\x0a\x23\xd7\xce"
HANGS = 30  # seconds; a set takes about ten milliseconds


@pytest.fixture(scope="module")
def sets(tmp_path_factory, encoded):
    """A set of 12 samples in 3 shards in each format, as the bytes of its files."""
    root = tmp_path_factory.mktemp("mutations")
    for row in range(12):
        image = encoded(row, size=(12 + row, 9), kind=("PNG", "JPEG")[row % 2])
        if row in (3, 8):
            image += bytes(-len(image) % 4) + MAGIC * 2  # RecordIO splits it
        path = root / "images" / f"class{row % 3}" / f"{row:03d} v1.5.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image)
    made = {}
    for name in CONTAINERS:
        convert(root / "images", root / name, ShardOptions(shard_samples=4, format=name), workers=1)
        made[name] = {path.name: path.read_bytes() for path in (root / name).iterdir()}
    return made


def _write(folder, files):
    for name, data in files.items():
        path = folder / name
        if data is None:
            path.unlink()
        else:
            path.write_bytes(data)


def _content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _is_named(report, damage):
    if len(damage.files) == 1:
        return any(finding.file == damage.files[0] for finding in report.findings)
    return any(finding.file.startswith(damage.files) for finding in report.findings)


def _run(mutations, folder, original, kind, seed, *, consistent):
    """Damage a set, verify it, and put it back; returns the report, or None if the mutation changed nothing."""
    rng = np.random.default_rng(seed)
    files = dict(original)
    damage = kind(rng, files, folder.parent)
    if consistent:
        mutations.checksums(files)
    changed = {name: data for name, data in files.items() if original.get(name) != data}
    if not changed or (consistent and set(changed) == {"dataset.json"}):
        return None
    _write(folder, changed)
    before = _content(folder)
    begin = time.perf_counter()
    report = verify(folder, decode=bool(seed % 2), workers=1)
    with suppress(ValueError, FileNotFoundError):  # and nothing else
        load(folder)
    assert _content(folder) == before
    assert time.perf_counter() - begin < HANGS
    _write(folder, {name: original.get(name) for name in changed})
    what = f"{kind.__name__}, seed {seed}, consistent {consistent}"
    assert not report.ok, f"not found: {what} in {damage}"
    assert _is_named(report, damage), f"not named: {what} in {damage}, got {[str(item) for item in report.findings]}"
    if consistent and damage.offset is not None:
        assert any(item.offset is not None for item in report.findings), f"no place: {what}"
    return report


def _repair(mutations, folder, original, kind, seed):
    """Damage a set and repair it; returns whether it is whole again, which then means the same bytes as before."""
    files = dict(original)
    kind(np.random.default_rng(seed), files, folder.parent)
    changed = {name: data for name, data in files.items() if original.get(name) != data}
    _write(folder, changed)
    report = repair(folder, workers=1)
    after = _content(folder)
    shards = {name: data for name, data in files.items() if name.endswith(mutations.DATA) and data is not None}
    assert {name: after[name] for name in shards} == shards, f"touched a shard: {kind.__name__}, seed {seed}"
    assert report.ok == (after == original), f"{kind.__name__}, seed {seed}: {report}"
    assert not report.ok or report.repaired or not changed
    for name in after.keys() - original.keys():
        (folder / name).unlink()
    _write(folder, original)
    return report.ok


def _fuzz(mutations, folder, original, kinds, seeds, *, consistent):
    folder.mkdir()
    _write(folder, original)
    assert verify(folder, decode=True, workers=1).ok
    done = 0
    for seed in seeds:
        for kind in kinds:
            done += _run(mutations, folder, original, kind, seed, consistent=consistent) is not None
    assert verify(folder, decode=True, workers=1).ok
    return done


@pytest.mark.parametrize("name", CONTAINERS)
def test_every_kind_of_damage_is_named(tmp_path, sets, mutations, name):
    assert _fuzz(mutations, tmp_path / "set", sets[name], mutations.PLAIN, range(3), consistent=False) > 80


@pytest.mark.parametrize("name", CONTAINERS)
def test_damage_with_right_checksums_is_named(tmp_path, sets, mutations, name):
    assert _fuzz(mutations, tmp_path / "set", sets[name], mutations.CONSISTENT, range(3), consistent=True) > 40


@pytest.mark.parametrize("name", CONTAINERS)
def test_repair_gives_back_the_same_bytes_or_says_that_it_cannot(tmp_path, sets, mutations, name):
    folder = tmp_path / "set"
    folder.mkdir()
    _write(folder, sets[name])
    whole = {
        (kind, seed): _repair(mutations, folder, sets[name], kind, seed)
        for seed in range(2)
        for kind in mutations.PLAIN
    }
    assert all(is_whole for (kind, _), is_whole in whole.items() if kind in (*mutations.INDEXES, *mutations.TABLES))


@pytest.mark.slow
@pytest.mark.parametrize("name", CONTAINERS)
def test_thousands_of_damaged_sets(tmp_path, sets, mutations, name):
    plain = _fuzz(mutations, tmp_path / "plain", sets[name], mutations.PLAIN, range(1000, 1015), consistent=False)
    consistent = _fuzz(
        mutations, tmp_path / "consistent", sets[name], mutations.CONSISTENT, range(2000, 2018), consistent=True
    )
    assert plain + consistent > 700
    folder = tmp_path / "repaired"
    folder.mkdir()
    _write(folder, sets[name])
    assert (
        sum(
            _repair(mutations, folder, sets[name], kind, seed) for seed in range(3000, 3006) for kind in mutations.PLAIN
        )
        > 40
    )
