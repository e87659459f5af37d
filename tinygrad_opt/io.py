"""Checkpoints: nested dicts and lists of arrays and plain values, in one file that is whole or refused.

The built-in format is an ordinary `.npz`, a zip of uncompressed `.npy` members that `numpy.load` opens too.
Beside the arrays stands `tree.json`, which says where each belongs, and the zip comment, the last bytes of
the file, holds the SHA-256 of everything before it: no damage, in whatever byte, goes unnoticed. Loading only
reads JSON and numbers, never a pickle, so a checkpoint from a stranger cannot execute anything.

In `tree.json` a JSON object is a tag around what JSON lacks, and everything else stands for itself:

    {"dict": [[key, value], ...]}  {"tuple": [...]}  {"int": "0x..."}  {"complex": [re, im]}  {"bytes": hex}
    {"array": member}  {"scalar": member}  {"tensor": member, "requires_grad": false}
"""
import math
import os
import re
import stat
from contextlib import contextmanager, suppress

import numpy as np
from numpy.lib import format as npy

from .backend import asarray, to_numpy, xp
from .tensor import Tensor

FORMAT = "tinygrad_opt checkpoint"
VERSION = 1
TREE = "tree.json"                      # the first member, so that the name stands at byte 30 of the file
SEAL = b"sha256:"                       # the zip comment, followed by 64 hexadecimal digits
DEPTH = 64                              # levels of nesting; deeper is a structure that contains itself
KINDS = "biufcSUmM"                     # dtypes that a .npy member keeps exactly (not objects, not records)
SAFETENSORS_DTYPES = ("bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 "
                      "float16 float32 float64 complex64").split()


class CheckpointError(ValueError):
    """A file that is no checkpoint, or no longer the one that was written; the message says which and why."""


def save(obj: object, path: str | os.PathLike) -> None:
    """Write `obj` to a file that :func:`load` gives back exactly.

    The file appears under its name only when all of it is on the disk; whatever happens before, a full disk,
    an interrupt or a crash, leaves the previous file as it was (and a killed process a hidden `.tmp` beside
    it, which may be deleted). The same `obj` makes the same bytes.

    Parameters
    ----------
    obj : object
        Dicts with str or int keys, lists and tuples, nested at most 64 deep, of Tensors, arrays, NumPy
        scalars, None, bool, int, float, complex, str and bytes. Subclasses of dict are written as dicts. Of a
        Tensor the values and `requires_grad` are kept, not the graph.
    path : str or path-like
        A name that ends in `.safetensors` selects that format (needs the package `safetensors`): dicts of
        arrays only, whose nested names are joined by dots. Every other name gets the built-in format.

    Raises
    ------
    TypeError
        A value or a key cannot be saved; the message gives its place in `obj`. No file is touched.
    ValueError
        `obj` is nested too deep, or contains itself; or two names coincide in a `.safetensors` file.

    Examples
    --------
    >>> import os, tempfile
    >>> import tinygrad_opt as tg
    >>> path = os.path.join(tempfile.mkdtemp(), "run.npz")
    >>> tg.save({"epoch": 3, "weights": [tg.Tensor([1.0, 2.0])], "best": float("inf")}, path)
    >>> state = tg.load(path)
    >>> state["epoch"], state["weights"][0].tolist(), state["best"]
    (3, [1.0, 2.0], inf)
    """
    path = os.fsdecode(path)
    if _is_safetensors(path):
        content = _pack_safetensors(obj)
        with _replacing(path) as file:
            file.write(content)
    else:
        arrays = {}
        tree = _encode(obj, (), arrays)
        with _replacing(path) as file:
            _write(file, tree, arrays)


def load(path: str | os.PathLike) -> object:
    """Read what :func:`save` wrote.

    Tensors come back as Tensors on the current backend and arrays as NumPy arrays, whichever backend wrote
    them, so that a checkpoint from a GPU opens on a laptop. A `.safetensors` file gives a flat dict of NumPy
    arrays.

    Parameters
    ----------
    path : str or path-like
        The file.

    Returns
    -------
    object
        What was saved.

    Raises
    ------
    CheckpointError
        The file is truncated, damaged, or no checkpoint at all. Nothing is ever executed or half loaded.
    FileNotFoundError
        There is no such file.
    """
    path = os.fsdecode(path)
    read = _read_safetensors if _is_safetensors(path) else _read
    with open(path, "rb") as file:
        try:
            return read(file)
        except (MemoryError, ImportError):
            raise
        except Exception as error:             # a file can come from anyone and break any parser in any way
            reason = error if isinstance(error, CheckpointError) else f"cannot be read: {error!r}"
            raise CheckpointError(f"{path}: {reason}") from error


# --- what may be saved --------------------------------------------------------------------------------------

def _spell(path):
    return "obj" + "".join(f"[{key!r}]" for key in path)


def _children(value, path):
    """The entries of a dict, list or tuple: key, value, path."""
    if len(path) == DEPTH:
        raise ValueError(f"{_spell(path[:3])}... is nested more than {DEPTH} deep: does it contain itself?")
    for key, child in value.items() if isinstance(value, dict) else enumerate(value):
        if type(key) not in (str, int):
            raise TypeError(f"{_spell(path)} has the key {key!r} of type {type(key).__name__}; "
                            "keys must be str or int")
        yield key, child, (*path, key)


def _host_array(value):
    """The values of a Tensor, array or NumPy scalar as a NumPy array; None for anything else."""
    if isinstance(value, Tensor):
        return to_numpy(value.data)
    if isinstance(value, np.generic):
        return np.asarray(value)
    if type(value) in (np.ndarray, xp.ndarray):   # a subclass (masked, matrix) means more than its numbers
        return to_numpy(value)
    return None


def _encode(value, path, arrays):
    """`value` as JSON; its arrays go into `arrays`, each under the name that its member will have."""
    kind = type(value)
    if value is None or kind in (bool, float, str):
        return value
    if kind is int:
        return value if abs(value) < 1 << 63 else {"int": hex(value)}
    if kind is complex:
        return {"complex": [value.real, value.imag]}
    if kind is bytes:
        return {"bytes": value.hex()}
    if isinstance(value, dict):
        return {"dict": [[_encode(key, path, arrays), _encode(child, at, arrays)]
                         for key, child, at in _children(value, path)]}
    if kind in (list, tuple):
        items = [_encode(child, at, arrays) for _, child, at in _children(value, path)]
        return items if kind is list else {"tuple": items}
    array = _host_array(value)
    if array is None:
        raise TypeError(f"{_spell(path)} is a {kind.__name__}, which a checkpoint cannot hold; save its "
                        "state as dicts, lists, arrays and plain values")
    if array.dtype.kind not in KINDS:
        raise TypeError(f"{_spell(path)} has dtype {array.dtype}, which a checkpoint cannot hold; convert it "
                        "to numbers, bools or strings")
    name = re.sub(r"[^\w.-]", "_", ".".join(map(str, path)))[:100] or "array"
    if name in arrays or name == TREE:
        name += f"~{len(arrays)}"
    arrays[name] = array
    if isinstance(value, Tensor):
        return {"tensor": name, "requires_grad": value.requires_grad}
    return {"scalar" if isinstance(value, np.generic) else "array": name}


def _decode(node, take):
    """What `_encode` made `node` from; `take(name)` gives an array."""
    if isinstance(node, list):
        return [_decode(item, take) for item in node]
    if not isinstance(node, dict):
        return node
    match node:
        case {"dict": items}:
            return {_decode(key, take): _decode(value, take) for key, value in items}
        case {"tuple": items}:
            return tuple(_decode(item, take) for item in items)
        case {"array": name}:
            return take(name)
        case {"scalar": name}:
            return take(name)[()]
        case {"tensor": name, "requires_grad": bool(requires_grad)}:
            tensor = Tensor._wrap(asarray(take(name)))
            tensor.requires_grad = requires_grad
            return tensor
        case {"int": digits}:
            return int(digits, 16)
        case {"complex": [real, imag]}:
            return complex(real, imag)
        case {"bytes": digits}:
            return bytes.fromhex(digits)
    raise CheckpointError(f"{TREE} holds the unknown tag {str(node)[:60]}")


# --- the built-in format ------------------------------------------------------------------------------------

def _write(file, tree, arrays):
    import json
    from zipfile import ZipFile, ZipInfo

    with ZipFile(file, "w") as archive:        # ZipInfo's default date is fixed: equal states, equal bytes
        archive.writestr(ZipInfo(TREE), json.dumps({"format": FORMAT, "version": VERSION, "tree": tree}))
        for name, array in arrays.items():
            with archive.open(ZipInfo(name + ".npy"), "w", force_zip64=True) as member:
                npy.write_array(member, array, allow_pickle=False)
        archive.comment = SEAL + bytes(64)
    end = file.seek(-64, os.SEEK_END)
    seal = _sha256(file, end)
    file.seek(end)
    file.write(seal)


def _read(file):
    """The object in a built-in file, trusting nothing: the seal shows damage, not who wrote it."""
    import json
    from zipfile import ZipFile

    size = _verify(file)
    with ZipFile(file) as archive:
        members = _members(archive, size)

        def take(name):                        # once each: a short file cannot ask for endless memory
            if (info := members.pop(name + ".npy", None)) is None:
                raise CheckpointError(f"lacks the member {name + '.npy'!r}, or uses it twice")
            return _read_array(archive, info)

        head = json.loads(archive.read(members.pop(TREE)))
        if (head["format"], head["version"]) != (FORMAT, VERSION):
            raise CheckpointError(f"has format {head['format']!r} version {head['version']!r}; this "
                                  f"release reads {FORMAT!r} version {VERSION}")
        return _decode(head["tree"], take)


def _members(archive, size):
    """The members by name, none of which can grow beyond the file when it is read."""
    members = {info.filename: info for info in archive.infolist()}
    if any(info.compress_type for info in members.values()):
        raise CheckpointError("has compressed members, which tg.save does not write")
    if sum(info.file_size for info in members.values()) > size:
        raise CheckpointError("claims members larger than the file")
    return members


def _read_array(archive, info):
    with archive.open(info) as member:
        npy.read_magic(member)
        shape, fortran, dtype = npy.read_array_header_1_0(member)
        if dtype.kind not in KINDS:
            raise CheckpointError(f"member {info.filename!r} has dtype {dtype}, which is never loaded")
        size = info.file_size - member.tell()
        if math.prod(shape) * dtype.itemsize != size:
            raise CheckpointError(f"member {info.filename!r} holds {size} bytes, which do not fit its shape "
                                  f"{shape} and dtype {dtype}")
        order = "F" if fortran else "C"
        array = np.empty(shape, dtype, order)
        rest = memoryview(array.reshape(-1, order=order).view(np.uint8))
        while rest:                            # pieces that fit the cache; at the end zipfile checks the CRC
            if not (n := member.readinto(rest[:1 << 18])):
                raise CheckpointError(f"member {info.filename!r} ends early")
            rest = rest[n:]
    return array


def _verify(file):
    """The size of a file that is, to the last bit, what `_write` made; others are refused with the reason."""
    head, size = file.read(30 + len(TREE)), file.seek(0, os.SEEK_END)
    if not head:
        raise CheckpointError("the file is empty")
    if not head.startswith(b"PK\3\4") or head[30:] != TREE.encode():
        hint = "; numpy.load opens an .npz of NumPy's" if head.startswith(b"PK") else ""
        raise CheckpointError(f"not a checkpoint written by tg.save, or damaged at its beginning{hint}")
    end = file.seek(max(0, size - 64))
    seal = file.read()
    file.seek(max(0, end - len(SEAL)))
    if file.read(len(SEAL)) != SEAL:
        raise CheckpointError("truncated, or damaged at its end: the closing checksum is missing")
    if _sha256(file, end) != seal:
        raise CheckpointError(f"wrong checksum{_damaged_member(file, size)}; use an older copy")
    return size


def _damaged_member(file, size):
    """Where a file with a wrong checksum is damaged, as far as the zip can tell."""
    from zipfile import ZipFile

    with suppress(Exception):                  # only for the message; the file is refused already
        with ZipFile(file) as archive:
            if _members(archive, size) and (name := archive.testzip()):
                return f", damaged member {name!r}"
    return ""


def _sha256(file, size):
    """Digest of the first `size` bytes, in hexadecimal."""
    from hashlib import sha256

    digest, block = sha256(), memoryview(bytearray(1 << 20))
    file.seek(0)
    while size and (n := file.readinto(block[:size])):
        digest.update(block[:n])
        size -= n
    return digest.hexdigest().encode()


# --- files --------------------------------------------------------------------------------------------------

@contextmanager
def _replacing(path):
    """A new file that takes the place of `path` when the block ends well, and vanishes when it does not."""
    target = os.path.realpath(path)            # a link keeps pointing where it points
    folder, name = os.path.split(target)
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"{path}: the folder {folder} does not exist; create it first")
    replaced = os.path.exists(target)
    if replaced and not os.path.isfile(target):
        raise IsADirectoryError(f"{path}: is a folder or a device; give the name of a file")
    if replaced and not os.access(target, os.W_OK):
        raise PermissionError(f"{path}: the file is write-protected")
    beside = os.path.join(folder, f".{name[:50]}.{os.urandom(8).hex()}.tmp")
    try:
        with open(beside, "x+b") as file:
            if replaced:
                os.chmod(beside, stat.S_IMODE(os.stat(target).st_mode))
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, target)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(beside)
        raise
    with suppress(OSError):                    # some systems cannot sync a folder, and so its new name
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


# --- safetensors --------------------------------------------------------------------------------------------

def _is_safetensors(path):
    return path.lower().endswith(".safetensors")


def _import_safetensors():
    try:
        import safetensors.numpy
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("a .safetensors file needs the package safetensors: `pip install "
                                  "safetensors`, or use a name that ends in .npz") from error
    return safetensors.numpy


def _flatten(mapping, path, arrays):
    """Put the arrays of nested dicts into `arrays`, named by their paths; refuse what would be lost."""
    if not isinstance(mapping, dict) or path and not mapping:
        what = "an empty dict" if isinstance(mapping, dict) else f"a {type(mapping).__name__}"
        raise TypeError(f"{_spell(path)} is {what}; a .safetensors file holds only dicts of arrays: use a "
                        "name that ends in .npz")
    for _, value, at in _children(mapping, path):
        array = _host_array(value)
        if array is None:
            _flatten(value, at, arrays)
            continue
        if array.dtype.name not in SAFETENSORS_DTYPES:
            raise TypeError(f"{_spell(at)} has dtype {array.dtype}, which a .safetensors file cannot hold: "
                            "use a name that ends in .npz")
        name = ".".join(map(str, at))
        if name in arrays or name == "__metadata__":
            raise ValueError(f"{_spell(at)} would be named {name!r} in the file, a name already taken")
        native = array.dtype.newbyteorder("=")   # the package writes raw memory, whatever its order
        arrays[name] = np.asarray(array, native, order="C")


def _pack_safetensors(obj):
    package, arrays = _import_safetensors(), {}
    _flatten(obj, (), arrays)
    return package.save(arrays, metadata={FORMAT: _digest(arrays)})


def _read_safetensors(file):
    import json

    package, data = _import_safetensors(), file.read()
    arrays = {name: array.copy() for name, array in sorted(package.load(data).items())}
    digest = _digest(arrays)
    header = json.loads(data[8:8 + int.from_bytes(data[:8], "little")])
    if header.get("__metadata__", {}).get(FORMAT, digest) != digest:    # files of other programs have none
        raise CheckpointError("damaged: wrong checksum; use an older copy")
    return arrays


def _digest(arrays):
    """SHA-256 of names, dtypes, shapes and values: the format itself has no checksum."""
    from hashlib import sha256

    digest = sha256()
    for name, array in sorted(arrays.items()):
        digest.update(repr((name, array.dtype.str, array.shape)).encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
