"""Checkpoints: everything comes back exactly, and no damaged or hostile file comes back at all."""
import errno
import io
import json
import os
import pickle
import signal
import stat
import subprocess
import sys
import zipfile
from hashlib import sha256

import numpy as np
import pytest

import tinygrad_opt as tg

rng = np.random.default_rng(0)


def assert_same(a, b):
    """Equal in type, order, dtype, shape, memory order and every bit."""
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert [(type(key), key) for key in a] == [(type(key), key) for key in b]
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    elif isinstance(a, tg.Tensor):
        assert a.requires_grad == b.requires_grad
        assert_same(a.numpy(), b.numpy())
    elif isinstance(a, (np.ndarray, np.generic)):
        assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
        assert not isinstance(a, np.ndarray) or (a.flags.fnc == b.flags.fnc and b.flags.writeable)
    else:
        assert a == b if isinstance(a, int) else repr(a) == repr(b)     # in repr nan is nan, and -0.0 not 0.0


def round_trip(obj, path):
    tg.save(obj, path)
    return tg.load(path)


def refused(path, reason):
    return pytest.raises(tg.CheckpointError, match=f"(?s)^{path}: .*{reason}")


STATE = {"model": {"0.weight": tg.Tensor([[1.0, 2.0], [3.0, 4.0]]), "0.bias": np.zeros(2, np.float16)},
         "step": 3, "lr": 1e-3, "names": ("a", None, True), 7: np.float64(2)}


# --- what comes back ----------------------------------------------------------------------------------------

@pytest.mark.parametrize("value", [
    None, True, False, 0, -1, 2**63 - 1, 2**63, -2**63, -2**64, 10**5000, "", "text", "naïve \ud800 \0 \"é\n",
    b"", b"\0\xff", 0.0, -0.0, 0.1, 5e-324, 1.7976931348623157e308, float("inf"), float("-inf"), float("nan"),
    complex(-0.0, float("nan")), [], (), {}, [[], ({},)], (1, [2, (3,)], {"a": {0: None, -5: 1, 2**70: 2}}),
    {"1": "text key", 1: "int key"}, {"dict": [["a", 1]]}, {"tensor": "x", "requires_grad": True},
], ids=lambda value: type(value).__name__)
def test_plain_values_come_back_exactly(tmp_path, value):
    assert_same(round_trip(value, tmp_path / "x.npz"), value)


@pytest.mark.parametrize("array", [
    np.float32(rng.normal(size=(3, 4))), np.array(2.5), np.zeros((0, 3), np.float32), np.zeros(0, bool),
    np.arange(24.0).reshape(4, 6)[::2, ::-3], np.asfortranarray(rng.normal(size=(3, 4))),
    rng.normal(size=(2, 3, 4)).transpose(2, 0, 1), np.float16([1, 6e-8, np.inf, np.nan]), np.array([True]),
    *(np.array([0, 1, np.iinfo(t).max, np.iinfo(t).min], t) for t in "bBhHiIlL"), np.complex64([1 - 2j]),
    np.float64([-0.0, 5e-324, np.nan]), np.array([1, 2], ">f4"), np.array(["a", "b"]),
    np.array([b"a", b"bcd"]), np.array(["2024-01-31", "NaT"], "M8[D]"), np.broadcast_to(1.0, (2, 2)),
], ids=lambda a: f"{a.dtype.str}{list(a.shape)}")
def test_arrays_come_back_exactly(tmp_path, array):
    back = round_trip(array, tmp_path / "x.npz")
    assert (back.dtype, back.shape, back.tobytes()) == (array.dtype, array.shape, array.tobytes())
    assert back.flags.writeable and back.flags.f_contiguous >= array.flags.f_contiguous


@pytest.mark.parametrize("scalar", [
    np.float64(0.1), np.float32(0.1), np.int8(-3), np.bool_(True), np.uint64(2**64 - 1), np.complex128(1j),
    np.str_("a"), np.datetime64("2024-01-31"),
])
def test_numpy_scalars_stay_numpy_scalars(tmp_path, scalar):
    assert_same(round_trip([scalar], tmp_path / "x.npz"), [scalar])


@pytest.mark.parametrize("tensor", [
    tg.Tensor([1.5, 2.5]), tg.Tensor(3.0, requires_grad=True), tg.Tensor([1, 2]), tg.Tensor(np.zeros((0, 2))),
    tg.Tensor([True, False]),
], ids=lambda tensor: str(tensor.dtype))
def test_tensors_come_back_as_tensors(tmp_path, tensor):
    assert_same(round_trip({"w": tensor}, tmp_path / "x.npz"), {"w": tensor})


def test_a_whole_state_under_any_name(tmp_path):
    for name in ("a.npz", "model.pt", "no_ending", "ü.ckpt", "x" * 255):
        assert_same(round_trip(STATE, tmp_path / name), STATE)
        assert_same(tg.load(str(tmp_path / name)), STATE)
    assert len(os.listdir(tmp_path)) == 5


def test_names_that_coincide_in_the_file_stay_apart(tmp_path):
    names = ["a.b", "a/b", "a_b", "", "tree.json", "../../etc\0", *("k" * 1000 + str(i) for i in range(5))]
    state = {name: np.array(i) for i, name in enumerate(names)}
    state |= {"a": {"b": np.array(-1)}, "tree": {"json": np.array(-2)}}
    assert_same(round_trip(state, tmp_path / "x.npz"), state)
    with zipfile.ZipFile(tmp_path / "x.npz") as archive:
        assert len(set(archive.namelist())) == 14 and not any("/" in name for name in archive.namelist())


def test_numpy_opens_it_too(tmp_path):
    tg.save(STATE, tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz", allow_pickle=False) as file:
        assert file["model.0.weight"].tolist() == [[1.0, 2.0], [3.0, 4.0]]
        assert file["model.0.bias"].dtype == np.float16


def test_the_same_state_makes_the_same_bytes(tmp_path):
    tg.save(STATE, tmp_path / "a")
    tg.save(STATE, tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_state_of_a_generator_goes_through(tmp_path):
    generator = tg.Generator(5)
    generator.permutation(10)
    state = round_trip(generator.get_state(), tmp_path / "x.npz")
    expected = generator.permutation(100)
    other = tg.Generator(0)
    other.set_state(state)
    np.testing.assert_array_equal(other.permutation(100), expected)


# --- what is not saved --------------------------------------------------------------------------------------

@pytest.mark.parametrize("value, place", [
    ({"a": [0, 1, 2, print]}, r"obj\['a'\]\[3\] is a builtin_function"),
    ({"a": {1, 2}}, r"obj\['a'\] is a set"),
    ([np.ma.array([1.0], mask=[True])], r"obj\[0\] is a MaskedArray"),
    ((stat.S_IFREG, errno), r"obj\[1\] is a module"),
    ({"a": {(1, 2): 3}}, r"obj\['a'\] has the key \(1, 2\) of type tuple"),
    ({True: 1}, "obj has the key True of type bool"),
    ({np.int64(1): 1}, "type int64; keys must be str or int"),
    ([np.array([None])], r"obj\[0\] has dtype object"),
    ([np.zeros(2, "f4,i4")], r"obj\[0\] has dtype .*, which a checkpoint cannot hold"),
])
def test_what_cannot_be_saved_is_named_and_nothing_is_touched(tmp_path, value, place):
    path = tmp_path / "x.npz"
    tg.save(1, path)
    with pytest.raises(TypeError, match=place):
        tg.save(value, path)
    assert tg.load(path) == 1 and os.listdir(tmp_path) == ["x.npz"]


def test_nesting_has_a_limit(tmp_path):
    deep = 0
    for _ in range(33):
        deep = {"a": [deep]}
    with pytest.raises(ValueError, match="more than 64 deep"):
        tg.save(deep, tmp_path / "x")
    loop = []
    loop.append(loop)
    with pytest.raises(ValueError, match=r"obj\[0\]\[0\]\[0\].* does it contain itself"):
        tg.save(loop, tmp_path / "x")
    assert os.listdir(tmp_path) == []


# --- damage -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("ending", ["npz", "safetensors"])
def test_every_truncation_and_every_flipped_bit_is_refused_or_harmless(tmp_path, ending):
    if ending == "safetensors":
        pytest.importorskip("safetensors")
    path = tmp_path / f"x.{ending}"
    tg.save({"w": np.arange(3.0, dtype=np.float32), "b": np.array(True)}, path)
    data, whole = path.read_bytes(), tg.load(path)

    def attempt(damaged):
        path.write_bytes(damaged)
        try:
            state = tg.load(path)
        except tg.CheckpointError:
            return 0
        assert_same(state, whole)
        return 1

    harmless = sum(attempt(data[:n]) for n in range(len(data)))
    for i, byte in enumerate(data):
        harmless += attempt(data[:i] + data[i + 1:])
        for bit in range(8):
            harmless += attempt(data[:i] + bytes([byte ^ 1 << bit]) + data[i + 1:])
    harmless += attempt(data + b"\0") + attempt(b"\0" + data) + attempt(data + data)
    assert harmless == 0 if ending == "npz" else harmless < len(data)    # in the name of the checksum itself
    assert attempt(data) == 1


def test_the_reason_is_given(tmp_path):
    path = tmp_path / "x.npz"
    tg.save({"w": np.arange(100.0)}, path)
    data = path.read_bytes()
    inside = data.index(np.arange(100.0).tobytes()) + 50
    for damaged, reason in [
        (b"", "the file is empty"),
        (b"hello", "not a checkpoint"),
        (pickle.dumps({"w": 1}), "not a checkpoint"),
        (data[:-1], "truncated"),
        (data[:len(data) // 2], "truncated"),
        (data[:inside] + b"?" + data[inside + 1:], r"wrong checksum, damaged member 'w\.npy'"),
        (data[:-5] + b"?" + data[-4:], "wrong checksum"),
    ]:
        path.write_bytes(damaged)
        with refused(path, reason):
            tg.load(path)
    np.savez(path, w=np.arange(3))
    with refused(path, "not a checkpoint written by tg.save.*numpy.load"):
        tg.load(path)


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(FileNotFoundError):
        tg.load(tmp_path / "missing.npz")
    with pytest.raises(IsADirectoryError):
        tg.load(tmp_path)
    with pytest.raises(IsADirectoryError, match="give the name of a file"):
        tg.save(1, tmp_path)
    with pytest.raises(FileNotFoundError, match="the folder .*nowhere does not exist"):
        tg.save(1, tmp_path / "nowhere" / "x.npz")


# --- hostile files: the checksum is right, the rest is not --------------------------------------------------

def npy(array=None, shape=None):
    """A member as NumPy writes it; or one of 8 bytes that claims `shape`."""
    file = io.BytesIO()
    if shape is None:
        np.save(file, array)
    else:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": shape})
        file.write(bytes(8))
    return file.getvalue()


def seal(content):
    return content + sha256(content).hexdigest().encode()


def forge(path, tree, members=(), version=1, text=None, compression=zipfile.ZIP_STORED):
    """A file as tg.save would seal it, with any content."""
    head = text or json.dumps({"format": "tinygrad_opt checkpoint", "version": version, "tree": tree})
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in (("tree.json", head), *dict(members).items()):
            archive.writestr(name, content)
        archive.comment = b"sha256:" + bytes(64)
    path.write_bytes(seal(path.read_bytes()[:-64]))


def test_a_forged_file_that_is_well_formed_loads(tmp_path):
    forge(tmp_path / "x", {"dict": [["a", {"array": "a"}]]}, {"a.npy": npy(np.arange(3))})
    assert_same(tg.load(tmp_path / "x"), {"a": np.arange(3)})


class Bomb:
    def __reduce__(self):
        return os._exit, (1,)


@pytest.mark.parametrize("tree, members, reason", [
    ({"array": "a"}, {}, "lacks the member 'a.npy'"),
    ([{"array": "a"}, {"array": "a"}], {"a.npy": npy(np.arange(3))}, "or uses it twice"),
    ({"array": "a"}, {"a.npy": npy(np.array([Bomb()]))}, "has dtype object, which is never loaded"),
    ({"array": "a"}, {"a.npy": pickle.dumps(Bomb())}, "cannot be read: .*magic"),
    ({"array": "a"}, {"a.npy": npy(np.zeros(2, "f4,O"))}, "which is never loaded"),
    ({"array": "a"}, {"a.npy": npy(shape=(10**12,))}, "holds 8 bytes, which do not fit its shape"),
    ({"array": "a"}, {"a.npy": npy(shape=(-1, -1))}, "cannot be read"),
    ({"array": "a"}, {"a.npy": npy(np.arange(3)) + b"x"}, "do not fit"),
    ({"array": ["a"]}, {}, "cannot be read"),
    ({"dict": [[[], 1]]}, {}, "cannot be read"),
    ({"dict": 5}, {}, "cannot be read"),
    ({"call": "os.system"}, {}, "unknown tag .*os.system"),
    ({"tensor": "a", "requires_grad": 3}, {"a.npy": npy(np.arange(3))}, "unknown tag"),
])
def test_hostile_content_is_refused(tmp_path, tree, members, reason):
    path = tmp_path / "x.npz"
    forge(path, tree, members)
    with refused(path, reason):
        tg.load(path)


@pytest.mark.parametrize("forgery, reason", [
    ({"text": "[" * 100_000}, "Recursion|nest"),
    ({"text": "{}"}, "KeyError"),
    ({"text": "not json"}, "JSONDecodeError"),
    ({"version": 2}, "has format 'tinygrad_opt checkpoint' version 2; this release reads"),
    ({"compression": zipfile.ZIP_DEFLATED}, "compressed members"),
])
def test_hostile_trees_are_refused(tmp_path, forgery, reason):
    path = tmp_path / "x.npz"
    forge(path, None, **forgery)
    with refused(path, reason):
        tg.load(path)


def test_no_sealed_file_raises_anything_else(tmp_path):
    path = tmp_path / "x"
    tg.save(STATE, path)
    content = path.read_bytes()[:-64]
    outcomes = set()
    for i, byte in enumerate(content):
        for bit in (0, 3, 7):
            path.write_bytes(seal(content[:i] + bytes([byte ^ 1 << bit]) + content[i + 1:]))
            try:
                outcomes.add(type(tg.load(path)))
            except tg.CheckpointError:
                outcomes.add(tg.CheckpointError)
    assert outcomes == {dict, tg.CheckpointError}


# --- the previous file --------------------------------------------------------------------------------------

@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_failed_save_leaves_the_previous_file_and_nothing_else(tmp_path, monkeypatch, function, error):
    path = tmp_path / "x.npz"
    tg.save({"epoch": 1}, path)

    def fail(*args):
        raise error

    monkeypatch.setattr(os, function, fail)
    with pytest.raises(type(error)):
        tg.save({"epoch": 2}, path)
    assert tg.load(path) == {"epoch": 1} and os.listdir(tmp_path) == ["x.npz"]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_save_killed_before_the_end_leaves_the_previous_file(tmp_path):
    path = tmp_path / "x.npz"
    tg.save({"epoch": 1}, path)
    script = ("import os, signal, sys, tinygrad_opt as tg\n"
              "os.replace = lambda *names: os.kill(os.getpid(), signal.SIGKILL)\n"
              "tg.save({'epoch': 2}, sys.argv[1])\n")
    assert subprocess.run([sys.executable, "-c", script, str(path)]).returncode == -signal.SIGKILL
    assert tg.load(path) == {"epoch": 1}


def test_data_is_on_the_disk_before_the_name(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *args, name=name, real=real: (calls.append(name), real(*args)))
    tg.save(1, tmp_path / "x.npz")
    assert calls == ["fsync", "replace", "fsync"]


@pytest.mark.skipif(os.name != "posix", reason="needs permission bits")
def test_permissions_are_those_of_an_ordinary_file(tmp_path):
    path = tmp_path / "x.npz"
    before = os.umask(0o027)
    try:
        tg.save(1, path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        path.chmod(0o604)
        tg.save(2, path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o604
    finally:
        os.umask(before)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="nothing is write-protected from root")
def test_a_write_protected_file_stays(tmp_path):
    path = tmp_path / "x.npz"
    tg.save(1, path)
    path.chmod(0o400)
    with pytest.raises(PermissionError, match="write-protected"):
        tg.save(2, path)


@pytest.mark.skipif(os.name != "posix", reason="needs links")
def test_a_link_keeps_pointing(tmp_path):
    link, path = tmp_path / "latest.npz", tmp_path / "x.npz"
    link.symlink_to(path)
    tg.save(1, link)
    tg.save(2, link)
    assert link.is_symlink() and tg.load(path) == 2


# --- safetensors --------------------------------------------------------------------------------------------

def test_safetensors_holds_what_numpy_holds(tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    path = tmp_path / "x.safetensors"
    arrays = {"strided": np.arange(12.0).reshape(3, 4)[:, ::2], "fortran": np.float64([[1, 2], [3, 4]]).T,
              "zero_d": np.array(3, np.int8), "empty": np.zeros((0, 2), np.float16),
              "swapped": np.array([1, 2], ">f4"), "bool": np.array([True, False])}
    tg.save({"layer": {0: arrays}, "w": tg.Tensor([1.0, 2.0])}, path)
    for back in (tg.load(path), safetensors.load_file(path)):
        assert sorted(back) == sorted([*(f"layer.0.{name}" for name in arrays), "w"])
        for name, array in arrays.items():
            np.testing.assert_array_equal(back[f"layer.0.{name}"], array, strict=name != "swapped")
        assert back["w"].tolist() == [1.0, 2.0] and back["w"].dtype == np.float32


def test_safetensors_of_other_programs_load(tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    safetensors.save_file({"w": np.arange(3)}, tmp_path / "x.safetensors", metadata={"format": "np"})
    assert_same(tg.load(tmp_path / "x.safetensors"), {"w": np.arange(3)})


@pytest.mark.parametrize("value, error, message", [
    ({"a": {"lr": 0.1}}, TypeError, r"obj\['a'\]\['lr'\] is a float; .* ends in .npz"),
    ([np.arange(3)], TypeError, "obj is a list"),
    ({"a": [np.arange(3)]}, TypeError, r"obj\['a'\] is a list"),
    ({"a": {}}, TypeError, r"obj\['a'\] is an empty dict"),
    ({"a": np.array(["x"])}, TypeError, r"obj\['a'\] has dtype <U1"),
    ({"a": {"b": np.arange(3)}, "a.b": np.arange(3)}, ValueError, r"obj\['a.b'\] would be named 'a.b'"),
    ({"__metadata__": np.arange(3)}, ValueError, "already taken"),
])
def test_safetensors_refuses_what_it_would_lose(tmp_path, value, error, message):
    pytest.importorskip("safetensors")
    with pytest.raises(error, match=message):
        tg.save(value, tmp_path / "x.safetensors")
    assert os.listdir(tmp_path) == []


def test_without_the_package_the_error_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    monkeypatch.setitem(sys.modules, "safetensors", None)
    path = tmp_path / "x.safetensors"
    with pytest.raises(ModuleNotFoundError, match="pip install safetensors.*npz"):
        tg.save({}, path)
    path.write_bytes(b"")
    with pytest.raises(ModuleNotFoundError, match="pip install safetensors.*npz"):
        tg.load(path)
