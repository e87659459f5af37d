"""Report: what communication has cost, verb by verb, over all ranks."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from . import world as current_world
from .communicator import Account, Communicator

COLUMNS = (*(field.name for field in fields(Account)), "hidden")
FORMATS = {"seconds": ",.4f", "waited": ",.4f", "hidden": ".0%"}


@dataclass(frozen=True)
class Report:
    """What communication has cost; printed, it is a table.

    Attributes
    ----------
    ranks : int
        How many there are.
    carrier : str
        What carries arrays between them.
    verbs : dict of str to dict of str to list
        For each verb its calls, bytes, seconds, waited and hidden, as `Account` describes them: the number of each
        rank.
    """

    ranks: int
    carrier: str
    verbs: dict[str, dict[str, list[float]]]

    def to_dict(self) -> dict[str, Any]:
        """Return all of it in plain Python, for json; of each number the mean over the ranks and the most on one."""
        return {"ranks": self.ranks, "carrier": self.carrier,
                "verbs": {verb: {name: {"mean": sum(values) / self.ranks, "max": max(values)}
                                 for name, values in columns.items()} for verb, columns in self.verbs.items()}}

    def __repr__(self) -> str:
        title = f"{self.ranks} rank{'s' * (self.ranks > 1)} by {self.carrier}"
        head = [[title, *(word for name in COLUMNS for word in (name, ""))], ["", *["mean", "max"] * len(COLUMNS)]]
        rows = head + [[verb, *(_shown(number, FORMATS.get(name)) for name, ends in columns.items()
                                for number in ends.values())] for verb, columns in self.to_dict()["verbs"].items()]
        widths = [max(map(len, column)) for column in zip(*rows)]
        return "\n".join("  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
                         for row in rows)


def _shown(number: float, how: str | None) -> str:
    """Return a number as it is said, by default without a fraction, unless it is small."""
    return format(number, how or (",.0f" if number == int(number) or number >= 10 else ".2g"))


def report(world: Communicator | None = None) -> Report:
    """Return what each verb has cost so far, on this communicator and on all that were split from it.

    All ranks call it together. The share `hidden` is that of the seconds, from the beginning of a call until its
    result was there, in which a rank did something else, such as the backward pass.

    Parameters
    ----------
    world : Communicator, optional
        By default `tg.distributed.world()`.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> def rank(world):
    ...     world.all_reduce(tg.ones(100))
    ...     return tg.distributed.report()
    >>> report = tg.distributed.simulate(2, rank)[0]
    >>> report.verbs["all_reduce"]["bytes"]
    [400, 400]
    >>> report.to_dict()["verbs"]["all_reduce"]["calls"]
    {'mean': 1.0, 'max': 1}
    """
    world = current_world() if world is None else world
    gathered = world.gather_objects({verb: asdict(account) | {"hidden": account.hidden}
                                     for verb, account in _total(world).items()})
    none = dict.fromkeys(COLUMNS, 0)
    verbs = sorted({verb for accounts in gathered for verb in accounts})
    carrier = type(world).__name__.removesuffix("Communicator")
    return Report(world.size, {"Thread": "threads"}.get(carrier, carrier), {
        verb: {name: [accounts.get(verb, none)[name] for accounts in gathered] for name in COLUMNS} for verb in verbs})


def _total(world: Communicator) -> dict[str, Account]:
    """Return the accounts of a communicator and its parts as one."""
    total: dict[str, Account] = {}
    for accounts in (world.accounts, *map(_total, world.parts)):
        for verb, account in accounts.items():
            sums = total.setdefault(verb, Account())
            for name, value in asdict(account).items():
                setattr(sums, name, getattr(sums, name) + value)
    return total
