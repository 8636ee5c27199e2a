"""Kinds of damage to a shard set, each applied at a place that a random generator picks.

A mutation takes a generator and the files of a set, changes some of them, and returns where the damage is. The set is a
dict from file names to bytes; None stands for a deleted file.
"""

import copy
import json
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from softfeed.pipelines.shards.containers.container import Columns, Entry, FileReader
from softfeed.pipelines.shards.containers.formats import CONTAINERS
from softfeed.pipelines.shards.manifest import SAMPLE_DTYPE, samples_bytes, samples_header

DATA = (".tar", ".tfrecord", ".rec")


class Damage(NamedTuple):
    """The files that verify must name (one of them is enough), and the offset if the damage is at one place."""

    files: tuple[str, ...]
    offset: int | None = None


def checksums(files):
    """Put all sizes and checksums in the manifest right, its own too: only the content can now show the damage."""
    content = json.loads(files["dataset.json"])
    for entry in [content["samples"], content.get("index"), content.get("names"), *content["shards"]]:
        if entry and files.get(entry["file"]) is not None:
            entry.update(bytes=len(files[entry["file"]]), crc32=zlib.crc32(files[entry["file"]]))
        if entry and entry.get("index") and files.get(entry["index"]) is not None:
            index = files[entry["index"]]
            entry.update(index_bytes=len(index), index_crc32=zlib.crc32(index))
    files["dataset.json"] = signed(content)


def signed(content):
    """Text of a manifest with its own checksum, as softfeed writes it."""
    content = {key: value for key, value in content.items() if key != "crc32"}

    def dump(value):
        return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()

    return dump(content | {"crc32": zlib.crc32(dump(content))})


def entries(files, name, work):
    """Records of a shard, and for each the place of its image and of its name, which nothing else in the set tells."""
    path = Path(work) / f"scanned{Path(name).suffix}"
    path.write_bytes(files[name])
    container = next(container for container in CONTAINERS.values() if container.suffix == path.suffix)
    with FileReader(path) as read:
        found = [entry for entry in container.scan(path) if isinstance(entry, Entry)]
        return [(entry, container.contents(entry, read, Columns())[0]) for entry in found]


def some_file(rng, files, suffixes=None):
    names = sorted(name for name, data in files.items() if data and (suffixes is None or name.endswith(suffixes)))
    return names[rng.integers(len(names))]


def some_range(rng, data, longest=64):
    start = int(rng.integers(len(data)))
    return start, min(len(data), start + int(rng.integers(1, longest)))


def first_change(before, after):
    return next((at for at, pair in enumerate(zip(before, after, strict=False)) if pair[0] != pair[1]), None)


# what anything can do to a file


def flip_bit(rng, files, work):
    name = some_file(rng, files)
    data = bytearray(files[name])
    at = int(rng.integers(len(data)))
    data[at] ^= 1 << int(rng.integers(8))
    files[name] = bytes(data)
    return Damage((name,))


def overwrite(rng, files, work):
    name = some_file(rng, files)
    start, end = some_range(rng, files[name])
    files[name] = files[name][:start] + rng.bytes(end - start) + files[name][end:]
    return Damage((name,))


def zero(rng, files, work):
    name = some_file(rng, files)
    start, end = some_range(rng, files[name], 2048)
    files[name] = files[name][:start] + bytes(end - start) + files[name][end:]
    return Damage((name,))


def cut(rng, files, work):
    name = some_file(rng, files)
    files[name] = files[name][: int(rng.integers(len(files[name])))]
    return Damage((name,))


def remove_range(rng, files, work):
    name = some_file(rng, files)
    start, end = some_range(rng, files[name], 1024)
    files[name] = files[name][:start] + files[name][end:]
    return Damage((name,))


def double_range(rng, files, work):
    name = some_file(rng, files)
    start, end = some_range(rng, files[name], 1024)
    files[name] = files[name][:end] + files[name][start:]
    return Damage((name,))


def append(rng, files, work):
    name = some_file(rng, files)
    files[name] += (bytes, rng.bytes)[int(rng.integers(2))](int(rng.integers(1, 1024)))
    return Damage((name,))


def swap_ranges(rng, files, work):
    name = some_file(rng, files)
    data, size = files[name], int(rng.integers(1, 64))
    first, second = sorted(int(at) for at in rng.integers(0, max(len(data) - size, 1), 2))
    if first + size <= second:
        middle = data[first + size : second]
        files[name] = data[:first] + data[second : second + size] + middle + data[first : first + size]
        files[name] += data[second + size :]
    return Damage((name,))


def empty(rng, files, work):
    name = some_file(rng, files)
    files[name] = b""
    return Damage((name,))


def delete(rng, files, work):
    name = some_file(rng, files)
    files[name] = None
    return Damage((name,))


def swap_files(rng, files, work):
    suffix = (DATA, ".idx")[int(rng.integers(2))]
    first, second = some_file(rng, files, suffix), some_file(rng, files, suffix)
    files[first], files[second] = files[second], files[first]
    return Damage((first, second))


def stray(rng, files, work):
    name = ("shard-000099.tar", "shard-000001.tar.tmp", "notes.txt", "README")[int(rng.integers(4))]
    files[name] = rng.bytes(100)
    return Damage((name,))


# records


def _with_records(rng, files, work, change):
    name = some_file(rng, files, DATA)
    found = [entry for entry, _ in entries(files, name, work)]
    data = files[name]
    pieces = [data[entry.offset : entry.offset + entry.size] for entry in found]
    tail = data[found[-1].offset + found[-1].size :]
    change(pieces)
    files[name] = b"".join(pieces) + tail
    return Damage((name,), first_change(data, files[name]))


def double_record(rng, files, work):
    at = int(rng.integers(3))
    return _with_records(rng, files, work, lambda pieces: pieces.insert(at, pieces[at]))


def repeat_record_later(rng, files, work):
    at = int(rng.integers(3))
    return _with_records(rng, files, work, lambda pieces: pieces.append(pieces[at]))


def drop_record(rng, files, work):
    at = int(rng.integers(3))
    return _with_records(rng, files, work, lambda pieces: pieces.pop(at))


def swap_records(rng, files, work):
    first, second = (int(at) for at in rng.choice(3, 2, replace=False))

    def swap(pieces):
        pieces[first], pieces[second] = pieces[second], pieces[first]

    return _with_records(rng, files, work, swap)


def record_of_other_shard(rng, files, work):
    other = [entry for entry, _ in entries(files, some_file(rng, files, DATA), work)]
    name = some_file(rng, files, DATA)
    piece = files[name][other[0].offset : other[0].offset + other[0].size]
    return _with_records(rng, files, work, lambda pieces: pieces.insert(2, piece))


def flip_in_frame(rng, files, work):
    """One bit outside of images and original names."""
    name = some_file(rng, files, DATA)
    free = np.ones(len(files[name]), bool)
    for entry, content in entries(files, name, work):
        free[content.image.offset : content.image.offset + content.image.size] = False
        text = content.name and files[name].find(content.name.encode(), entry.offset, entry.offset + entry.size)
        if text:
            free[text : text + len(content.name.encode())] = False
    places = np.flatnonzero(free)
    at = int(places[rng.integers(len(places))])
    data = bytearray(files[name])
    data[at] ^= 1 << int(rng.integers(8))
    files[name] = bytes(data)
    return Damage((name,), at)


def damage_image(rng, files, work):
    name = some_file(rng, files, DATA)
    found = entries(files, name, work)
    image = found[int(rng.integers(len(found)))][1].image
    start = image.offset + int(rng.integers(image.size))
    size = int(rng.integers(1, 1 + min(40, image.offset + image.size - start)))
    files[name] = files[name][:start] + rng.bytes(size) + files[name][start + size :]
    return Damage((name,), start)


# indexes


def _lines_of_index(rng, files, change):
    name = some_file(rng, files, ".idx")
    lines = files[name].splitlines(keepends=True)
    change(lines)
    before, files[name] = files[name], b"".join(lines)
    return Damage((name,), first_change(before, files[name]))


def drop_index_line(rng, files, work):
    return _lines_of_index(rng, files, lambda lines: lines.pop(int(rng.integers(len(lines)))))


def double_index_line(rng, files, work):
    return _lines_of_index(rng, files, lambda lines: lines.insert(int(rng.integers(len(lines))), lines[-1]))


def swap_index_lines(rng, files, work):
    return _lines_of_index(rng, files, lambda lines: lines.append(lines.pop(int(rng.integers(len(lines) - 1)))))


def edit_index_number(rng, files, work):
    def edit(lines):
        at = int(rng.integers(len(lines)))
        words = lines[at].split(b" " if b" " in lines[at] else b"\t")
        numbers = [place for place, word in enumerate(words) if word.strip().isdigit()]
        place = numbers[int(rng.integers(len(numbers)))]
        end = b"\n" if words[place].endswith(b"\n") else b""
        words[place] = b"%d" % (int(words[place]) + int(rng.choice([-1, 1, 512, -512, 1 << 40]))) + end
        lines[at] = (b" " if b" " in lines[at] else b"\t").join(words)

    return _lines_of_index(rng, files, edit)


def edit_index_word(rng, files, work):
    def edit(lines):
        at = int(rng.integers(len(lines)))
        lines[at] = lines[at].replace(b"\t", b" x ").replace(b"png", b"jpg").replace(b"v1.2", b"v1.1")
        lines[at] = lines[at][:-1] + b" \n"

    return _lines_of_index(rng, files, edit)


# the table of samples


def _table(files):
    return np.frombuffer(files["samples.npy"], SAMPLE_DTYPE, offset=len(samples_header(0))).copy()


def edit_table(rng, files, work):
    table = _table(files)
    names = SAMPLE_DTYPE.names
    column = names[int(rng.integers(len(names)))]
    row = int(rng.integers(len(table)))
    table[column][row] += int(rng.choice([-1, 1, 2, 512, -512, 1 << 20]))
    files["samples.npy"] = samples_bytes(table)
    return Damage(("samples.npy", "shard-"))


def swap_rows(rng, files, work):
    table = _table(files)
    first, second = rng.choice(len(table), 2, replace=False)
    table[[first, second]] = table[[second, first]]
    files["samples.npy"] = samples_bytes(table)
    return Damage(("samples.npy", "shard-"))


def drop_row(rng, files, work):
    files["samples.npy"] = samples_bytes(np.delete(_table(files), int(rng.integers(3))))
    return Damage(("samples.npy", "shard-"))


def double_row(rng, files, work):
    table = _table(files)
    files["samples.npy"] = samples_bytes(np.insert(table, 2, table[int(rng.integers(len(table)))]))
    return Damage(("samples.npy", "shard-"))


# the manifest


def leaves_of(value, path=()):
    if isinstance(value, dict):
        return [leaf for key, item in value.items() for leaf in leaves_of(item, (*path, key))]
    if isinstance(value, list):
        return [leaf for key, item in enumerate(value) for leaf in leaves_of(item, (*path, key))]
    return [path]


def _edited(rng, files, new):
    content = json.loads(files["dataset.json"])
    leaves = leaves_of(content)
    path = leaves[int(rng.integers(len(leaves)))]
    parent = content
    for key in path[:-1]:
        parent = parent[key]
    new(parent, path[-1])
    files["dataset.json"] = (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()
    return Damage(("dataset.json",))


def edit_manifest_value(rng, files, work):
    def new(parent, key):
        value = parent[key]
        if isinstance(value, bool) or value is None:
            parent[key] = not value
        elif isinstance(value, int):
            parent[key] = value + int(rng.choice([-1, 1, 10240, -10240]))
        else:
            parent[key] = value + "x" if rng.integers(2) else value[:-1]

    return _edited(rng, files, new)


def edit_manifest_type(rng, files, work):
    values = [None, "x", -1, 1.5, [], {}, [1], {"a": 1}, True, "1", 10**30, "../x", "/dev/zero", "\0", 1e400, "\ud800"]
    content = copy.deepcopy(values[int(rng.integers(len(values) - 1))])

    def new(parent, key):
        parent[key] = content if parent[key] != content else [[]]

    return _edited(rng, files, new)


def drop_manifest_entry(rng, files, work):
    return _edited(rng, files, lambda parent, key: parent.pop(key))


def double_manifest_text(rng, files, work):
    """Any line of the text once more: a key twice, mostly, of which parsers take the last."""
    lines = files["dataset.json"].splitlines(keepends=True)
    at = int(rng.integers(len(lines)))
    files["dataset.json"] = b"".join([*lines[:at], lines[at], *lines[at:]])
    return Damage(("dataset.json",))


def swap_manifest_shards(rng, files, work):
    content = json.loads(files["dataset.json"])
    shards = content["shards"]
    change = int(rng.integers(3))
    if change == 0:
        shards.append(shards.pop(int(rng.integers(len(shards) - 1))))
    elif change == 1:
        shards.pop(int(rng.integers(len(shards))))
    else:
        shards.append(shards[0])
    files["dataset.json"] = (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()
    return Damage(("dataset.json",))


INDEXES = (drop_index_line, double_index_line, swap_index_lines, edit_index_number, edit_index_word)
TABLES = (edit_table, swap_rows, drop_row, double_row)
PLAIN = (
    *(flip_bit, overwrite, zero, cut, remove_range, double_range, append, swap_ranges),
    *(empty, delete, swap_files, stray),
    *(double_record, repeat_record_later, drop_record, swap_records, record_of_other_shard),
    *(flip_in_frame, damage_image),
    *INDEXES,
    *TABLES,
    *(edit_manifest_value, edit_manifest_type, drop_manifest_entry, double_manifest_text, swap_manifest_shards),
)
# those that the content of the set shows even when every checksum was computed anew
CONSISTENT = (
    *(swap_files, double_record, repeat_record_later, drop_record, swap_records, record_of_other_shard, flip_in_frame),
    *INDEXES,
    *TABLES,
)
