import os
import pickle
import pickletools
import random

import numpy as np
import pytest
from softfeed.pipelines.shards.sources.plain_pickle import load_plain_pickle, plain_array


@pytest.mark.parametrize("protocol", [3, 4, 5])  # for older ones Python 3 writes bytes as a call
def test_plain_data_comes_back(protocol):
    value = {b"labels": [1, 2, 300, -1], "names": ["a", b"b"], "t": (1, 2.5, None, True), "d": {"x": []}}
    assert load_plain_pickle(pickle.dumps(value, protocol), "it") == value


@pytest.mark.parametrize("protocol", [3, 4])
@pytest.mark.parametrize("shape", [(0, 3), (5,), (4, 3, 2)])
def test_arrays_come_back(protocol, shape):
    array = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    found = plain_array(load_plain_pickle(pickle.dumps(array, protocol), "it"), "it")
    np.testing.assert_array_equal(found, array)
    assert found.dtype == np.uint8


def test_pickles_of_python_2_are_read():
    """Protocol 2 as Python 2 wrote it: byte strings as strings of 8-bit characters."""
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x02K\x03\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U\x06\x00\xff\x80abctb"
    )
    found = load_plain_pickle(b"\x80\x02}(U\x04data" + array + b"U\x06labels]K\x07au.", "it")
    assert found[b"labels"] == [7]
    np.testing.assert_array_equal(plain_array(found[b"data"], "it"), [[0, 255, 128], [97, 98, 99]])


class _Runs:
    """Runs a command when it is unpickled by anyone who lets it."""

    def __init__(self, *call):
        self._call = call

    def __reduce__(self):
        return self._call[0], self._call[1:]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("where", ["alone", "among data"])
def test_calls_are_refused_and_not_made(tmp_path, protocol, where):
    path = tmp_path / "owned"
    evil = _Runs(os.mkdir, str(path))
    data = pickle.dumps(evil if where == "alone" else {"data": [1, evil]}, protocol)
    with pytest.raises(ValueError, match=r"must hold plain data and arrays only, got (posix|nt).mkdir"):
        load_plain_pickle(data, "it")
    assert not path.exists()
    pickle.loads(data)
    assert path.exists()  # the pickle would have worked


@pytest.mark.parametrize(
    ("call", "name"),
    [((eval, "1"), "builtins.eval"), ((np.zeros, 3), "numpy.zeros"), ((getattr, "a", "b"), "builtins.getattr")],
)
def test_other_names_are_refused(call, name):
    with pytest.raises(ValueError, match=f"got {name}"):
        load_plain_pickle(pickle.dumps(_Runs(*call), 4), "it")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x80\x02\x82\x01.", "got the instruction EXT1 at byte 2"),
        (b"(I1\nios\nsystem\n.", "got the instruction INST at byte"),
        (b"\x80\x02cnumpy\ndtype\n)\x81.", "got the instruction NEWOBJ"),
        (b"Pid\n.", "got the instruction PERSID"),
        (b"\x80\x02K\x01r\xff\xff\xff\xff.", "at most 10000000 values, got 4294967295 at byte 4"),
        (b"K\x01p4000000000\n.", "at most 10000000 values, got 4000000000 at byte 2"),
        (b"\x80\x02U\x05abc", "must be whole and hold plain data, got it: "),
        (b"", "must be whole and hold plain data, got it: "),
        (b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n}b.", "a state for a function"),
        (b"\x80\x03B\xff\xff\xff\x7fabc.", "must be whole and hold plain data, got it: "),
    ],
)
def test_hostile_and_damaged_pickles_are_refused(data, message):
    with pytest.raises(ValueError, match=message):
        load_plain_pickle(data, "it")


def test_mutated_pickles_raise_nothing_but_value_errors():
    """Bits flipped, cut and spliced: an error of ours, or plain data."""
    good = pickle.dumps({"data": np.arange(12, dtype=np.uint8).reshape(3, 4), "labels": [1, 2, 3]}, 4)
    rng = random.Random(0)
    refused = 0
    for _ in range(2000):
        data = bytearray(good)
        for _ in range(rng.randint(1, 3)):
            place = rng.randrange(len(data))
            data[place : place + rng.choice((0, 1, 1, 1, 5))] = rng.randbytes(rng.randint(0, 2))
        try:
            found = load_plain_pickle(bytes(data), "it")
            plain_array(found["data"] if isinstance(found, dict) and "data" in found else found, "it")
        except ValueError:
            refused += 1
    assert refused > 1000


@pytest.mark.parametrize(
    "array",
    [np.zeros(3), np.zeros(3, np.int8), np.zeros((2, 3), np.uint8, order="F"), np.zeros(3, object)],
    ids=["float64", "int8", "Fortran order", "objects"],
)
def test_other_arrays_are_refused(array):
    found = load_plain_pickle(pickle.dumps(array, 4), "it")
    with pytest.raises(ValueError, match=r"must hold an array (of uint8, got one of|in C order, got another)"):
        plain_array(found, "it")


def test_an_array_that_its_bytes_do_not_fill_is_refused():
    data = pickle.dumps(np.zeros((3, 4), np.uint8), 4)
    opcode = next(place for op, value, place in pickletools.genops(data) if op.name == "BININT1" and value == 4)
    data = data[: opcode + 1] + b"\xfe" + data[opcode + 2 :]
    with pytest.raises(ValueError, match=r"must hold an array of shape \(3, 254\), got 12 bytes in it"):
        plain_array(load_plain_pickle(data, "it"), "it")


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02})" + b"\x85" * 300_000 + b"Ns.",  # SETITEM; hashing it ends the process
        b"\x80\x02}()" + b"2\x86" * 60 + b"Nu.",  # SETITEMS; hashing it takes years
        b"\x80\x02(K\x01K\x02)" + b"2\x86" * 60 + b"Nd.",  # DICT, as its second key
        b"\x80\x02})" + b"2\x86" * 60 + b"q\x000h\x00Ns.",  # by way of the memo
        b"\x80\x04})" + b"2\x86" * 60 + b"\x940h\x00Ns.",
        b"\x80\x02})" + b"2\x86" * 60 + b"2Ns.",
        b"\x80\x02})" + b"2\x86" * 60 + b"NbNs.",  # a state of None leaves a value as it is
    ],
    ids=["deep", "SETITEMS", "DICT", "memo", "MEMOIZE", "DUP", "BUILD"],
)
def test_tuples_are_no_keys(data):
    with pytest.raises(ValueError, match="must have strings and numbers as keys, got a tuple at byte"):
        load_plain_pickle(data, "it")


def test_tuples_are_values():
    value = {1: (2, (3,)), "a": ((), {b"b": (4, 5), None: ()}), 2.5: [(6,)]}
    for protocol in (3, 4):
        assert load_plain_pickle(pickle.dumps(value, protocol), "it") == value


def test_a_type_that_is_no_string_is_not_shown():
    deep = b"]" * 100_000 + b"a" * 99_999
    array = b"cnumpy.core.multiarray\n_reconstruct\n)R(K\x01K\x02\x85cnumpy\ndtype\n" + deep + b"\x85R\x89U\x02ab\x74b."
    with pytest.raises(ValueError, match="must hold an array of uint8, got one of list in it"):
        plain_array(load_plain_pickle(b"\x80\x02" + array, "it"), "it")
