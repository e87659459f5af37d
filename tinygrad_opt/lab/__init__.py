"""The laboratory: instruments that show what an optimizer does, all of them readers of one record of a run."""

from importlib import import_module

# These are read when they are first asked for; each file is one instrument.
_LATER = {
    **dict.fromkeys(("Trace", "record"), "traces"),
    **dict.fromkeys(("SURFACES", "Surface", "surface", "list_surfaces"), "surfaces"),
}
__all__ = list(_LATER)


def __getattr__(name: str):
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_LATER[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
