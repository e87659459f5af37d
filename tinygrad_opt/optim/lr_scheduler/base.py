"""HyperScheduler and LRScheduler: how a pure function of the step meets the groups of an optimizer."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

from ..schedule import Schedule, Table
from .state import plain, restored

if TYPE_CHECKING:
    from ..optimizer import Optimizer


UNSAVED = {"optimizer", "_settings", "_schedule", "_seen"}


class HyperScheduler:
    """Multiply an option of every group by a function of the step.

    Its value in group k is `base * share + rest`, both pure functions of the step. It keeps what it wrote
    last; where it finds another value (`optimizer.lr *= 0.1`, another scheduler), it takes the base from which
    that value follows. So changes from outside last, and schedulers of one option multiply.

    Parameters
    ----------
    optimizer : Optimizer
        Whose groups to write.
    key : str
        The option: "lr", "weight_decay", "momentum", "eps", ...; "beta1" is the first of `betas`.
    fn : callable, or list of callables
        `t -> factor`, a Schedule or a function, for all groups or one for each.
    last_epoch : int, default -1
        The step before the first; anything but -1 goes on from there with the present value.

    Attributes
    ----------
    last_epoch : int
        The step whose value is in force.
    bases : list of float
        For each group, what the function multiplies.

    Warns
    -----
    UserWarning
        When it can have no effect: the optimizer reads the option only once, or it is 0 in every group.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> from tinygrad_opt.optim.lr_scheduler import HyperScheduler
    >>> from tinygrad_opt.optim.schedule import linear
    >>> w = tg.zeros(3, requires_grad=True)
    >>> optimizer = tg.optim.AdamW([w], weight_decay=0.1)
    >>> HyperScheduler(optimizer, "weight_decay", linear(4)).table(3)
    t  weight_decay
    0  0.1
    1  0.075
    2  0.05
    """

    absolute: ClassVar[bool] = False        # the values are its own, whatever the groups had
    chainable: ClassVar[bool] = True        # last_epoch >= 0 goes on from the present value, not from initial_lr
    closed: ClassVar[bool] = False          # as in torch, what other schedulers wrote is overwritten, not multiplied
    floors: list[float] | tuple = ()        # for each group, the value where the base has no share
    parts: list[HyperScheduler] | tuple = ()                    # which go along with it

    def __init__(self, optimizer: Optimizer, key: str, fn: Callable | Sequence[Callable], last_epoch: int = -1) -> None:
        self.fns = functions("fn", optimizer, fn)
        self._attach(optimizer, key, last_epoch)
        if key != "lr" and not any(self.bases):
            warnings.warn(f"{type(self).__name__}: {key} is 0 in every group, and 0 times a factor stays 0; set it "
                          "first", stacklevel=2)

    def _attach(self, optimizer: Optimizer, key: str, last_epoch: int) -> None:
        """Take hold of the groups and write the first value."""
        groups = groups_of(optimizer)
        self.optimizer, self.key, self._resumed = optimizer, key, last_epoch != -1
        origin = now = self._now()
        if key == "lr" and self._resumed:
            for k, group in enumerate(groups):
                if "initial_lr" not in group:
                    raise KeyError(f"param 'initial_lr' is not specified in param_groups[{k}] when resuming scheduler "
                                   "with last_epoch >= 0: load the optimizer's state first, or leave last_epoch = -1")
            origin = [group["initial_lr"] for group in groups]
        elif key == "lr":
            origin = self._unscheduled(now) if self.closed else now
            for group, value in zip(groups, now):
                group.setdefault("initial_lr", value)
        self._begin(origin, last_epoch + 1)
        if self._resumed and self.chainable:
            self._put(now)                      # to be folded at the next step, like any change from outside
        self._warn_if_read_once()

    def _warn_if_read_once(self) -> None:
        if self.key in getattr(self.optimizer, "read_once", ()):
            done = self.optimizer.step_count
            when = f"{done} steps ago" if done else f"where it will find {_numbers(self._now())}"
            warnings.warn(f"{type(self).__name__} can have no effect: {type(self.optimizer).__name__} reads {self.key} "
                          f"only at its first step, {when}", stacklevel=5)

    # ---- the values ---------------------------------------------------------------------------------------

    def share(self, t: float, k: int) -> float:
        """Return what the base of group k is multiplied by at step t."""
        return self.fns[k](t)

    def _weights(self, t: float, k: int) -> tuple[float, float]:
        """Return the share of the base, and the rest, in the value of group k at step t."""
        share = self.share(t, k)
        return share, self.floors[k] * (1 - share) if self.floors else 0.0

    def _values(self) -> list[float]:
        weights = (self._weights(self.last_epoch, k) for k in range(len(self.bases)))
        return [base * share + rest for base, (share, rest) in zip(self.bases, weights)]

    # ---- the steps ----------------------------------------------------------------------------------------

    def step(self, epoch: float | None = None) -> None:
        """Write the values of the next step into the groups; call it after `optimizer.step()`.

        Parameters
        ----------
        epoch : int, optional
            Go to this step instead.

        Warns
        -----
        UserWarning
            When the optimizer has not made a step yet, so that the first value was never used.
        """
        if epoch is not None and not epoch >= 0:
            raise ValueError(f"Expected non-negative epoch, but got {epoch}")
        before, first = self._now(), self.last_epoch == 0 and not self._resumed
        self._go(self.last_epoch + 1 if epoch is None else epoch)
        if first and not self.optimizer.step_count and not getattr(self.optimizer, "skipped", 0):
            warnings.warn(f"the first value {_numbers(before)} was never used; {type(self).__name__}.step() came "
                          f"before the first optimizer.step(), which will use {self.key} = {_numbers(self._now())} of "
                          f"step {self.last_epoch}. Call optimizer.step() first", stacklevel=2)

    def _unscheduled(self, now: list[float]) -> list[float]:
        """Return what the groups would have if no other scheduler had written."""
        ledger = self._ledger()
        initial = [group.get("initial_lr", value) for group, value in zip(self.optimizer.param_groups, now)]
        return [first * ledger[k, self.key][1] if ledger.get((k, self.key), [None])[0] == value else value
                for k, (first, value) in enumerate(zip(initial, now))]

    def _ledger(self) -> dict[tuple[int, str], list[float]]:
        """Return, by group and option, what a scheduler wrote last, and the factor of all changes by others."""
        return vars(self.optimizer).setdefault("_put_by_schedulers", {})

    def _begin(self, origin: list[float], t: float = 0, starts: list[float] | None = None) -> None:
        """Start at step t in groups that would have the values `origin` without a scheduler."""
        self._origin = list(origin)
        self._seen = [self._ledger().get((k, self.key), [0, 1.0])[1] for k in range(len(origin or self._now()))]
        self._starts = list(self._own_starts(origin) if starts is None else starts)
        self.bases, self._written = list(self._starts), []
        self._put(self._starts)
        for part in self.parts:
            part._begin(part._own_starts([]), t)
        self._go(t)

    def _join(self, origin: list[float], t: float) -> None:
        """Take over from another scheduler; what was changed from outside before stays changed."""
        if not self.absolute:
            return self._begin(origin, t)
        initial = [group["initial_lr"] for group in self.optimizer.param_groups]
        self._begin(initial, t)
        changed = [value * (now / was if was else 1.0) for value, now, was in zip(self._written, origin, initial)]
        for k, (new, old) in enumerate(zip(changed, self._written)):
            self._fold(k, new, old)
        self._put(changed)
        self._written = changed

    def _own_starts(self, origin: list[float]) -> list[float]:
        return origin

    def _go(self, t: float) -> None:
        """Write the values of step t, after folding in what was changed from outside."""
        self._fold_all()
        self.last_epoch, previous = t, getattr(self, "last_epoch", t)
        try:
            values = self._values()
            if self.chainable and not self.floors and self._written:        # 0 for good: what others write there stays
                values = [value or self._left(k, previous, t) for k, value in enumerate(values)]
        except Exception:
            self.last_epoch = previous
            raise
        self._put(values)
        self._written = values
        for part in self.parts:
            part._go(t)

    def _left(self, k: int, before: float, t: float) -> float:
        return self._written[k] if self.share(before, k) == self.share(t, k) == 0 else 0.0

    def _fold_all(self) -> None:
        if len(self.optimizer.param_groups) != len(self.bases):
            raise ValueError(f"{type(self).__name__} was made for {len(self.bases)} groups, the optimizer has "
                             f"{len(self.optimizer.param_groups)} now; make it again after add_param_group")
        ledger = self._ledger()
        for k, (current, written) in enumerate(zip(self._now(), self._written)):
            before, _ = entry = ledger.setdefault((k, self.key), [written, 1.0])
            if current and before:
                entry[1] *= current / before
            entry[0] = current
            factor, self._seen[k] = entry[1] / self._seen[k], entry[1]
            self._folded(k, factor)
            # To a closed one only what users did counts; between two of its own writes that is all there is.
            alone = before == written or current and not before
            wanted = current if not self.closed or alone else written * factor
            if wanted != written:
                self._fold(k, wanted, written)
                self._written[k] = wanted

    def _folded(self, k: int, factor: float) -> None:
        """Take note that a user, not a scheduler, has multiplied the value of group k."""

    def _fold(self, k: int, current: float, written: float) -> None:
        """Take the base from which the value follows that someone else has written."""
        share, rest = self._weights(self.last_epoch, k)
        if share and not self.absolute:
            self.bases[k] = (current - rest) / share
        elif written:
            self.bases[k] *= current / written
            if self.floors:
                self.floors[k] *= current / written
        else:
            self.bases[k] = current

    def _plain(self) -> list[float]:
        """Return what the groups would have now without this scheduler."""
        self._fold_all()
        return [base if origin == start or not start else origin * (base / start)
                for origin, start, base in zip(self._origin, self._starts, self.bases)]

    # ---- the groups ---------------------------------------------------------------------------------------

    def _now(self) -> list[float]:
        return [_read(self, group, k) for k, group in enumerate(self.optimizer.param_groups)]

    def _put(self, values: list[float]) -> None:
        for group, value in zip(self.optimizer.param_groups, values):
            name, place = _place(group, self.key)
            group[name] = value if place is None else (*group[name][:place], value, *group[name][place + 1:])
        for k, value in enumerate(values):
            self._ledger().setdefault((k, self.key), [value, 1.0])[0] = value

    def get_last_lr(self) -> list[float]:
        """Return the learning rate that each group has now."""
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    # ---- reading and saving -------------------------------------------------------------------------------

    def table(self, n: int) -> Table:
        """Return the value now and the next n - 1, as (t, value of group 0, of group 1, ...); it prints as a table."""
        stand_in = SimpleNamespace(defaults=self.optimizer.defaults, step_count=1, _put_by_schedulers=copy.deepcopy(
            self._ledger()), param_groups=[
            {key: value for key, value in group.items() if key != "params"} for group in self.optimizer.param_groups])
        twin = copy.deepcopy(self, {id(self.optimizer): stand_in})
        rows = []
        for k in range(n):
            if k:
                twin._ahead()
            rows.append((twin.last_epoch, *twin._now()))
        count = len(self.optimizer.param_groups)
        return Table(rows, ("t", *([f"{self.key} {k}" for k in range(count)] if count > 1 else [self.key])))

    def _ahead(self) -> None:
        self._go(self.last_epoch + 1)

    def plot(self, n: int | None = None, ax: Any = None) -> Any:
        """Draw the value now and the next n - 1 with matplotlib, 100 or `total_steps` in all; return the axes."""
        return self.table(n or getattr(self, "total_steps", 100)).plot(ax)

    def state_dict(self) -> dict[str, Any]:
        """Return where it stands and its settings: numbers, text, lists and dicts only.

        Functions are not saved (None stands in their place), and of callable objects only attributes that are
        such values; a warning names the others.
        """
        saved = {key: plain(value, key) for key, value in vars(self).items() if key not in UNSAVED}
        now = self._now()
        put = [self._ledger().get((k, self.key), [value])[0] for k, value in enumerate(now)]
        return {"scheduler": type(self).__name__, "now": now, "put": put, **saved}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned.

        The groups get the values that they had, unless someone else (the optimizer's own load_state_dict) has
        written there since this scheduler did.

        Raises
        ------
        ValueError
            When it is the state of another class or for another number of groups. Nothing is changed then.
        """
        self.check_state(state_dict)
        untouched = self._now() == getattr(self, "_written", None)
        for key in state_dict.keys() - {"scheduler", "now", "put"}:
            setattr(self, key, restored(getattr(self, key), state_dict[key]))
        if untouched:
            self._put(state_dict["now"])
        self._ledger().update({(k, self.key): [value, 1.0] for k, value in enumerate(state_dict["put"])})
        self._seen, self._resumed = [1.0] * len(state_dict["put"]), True

    def check_state(self, saved: dict[str, Any]) -> None:
        """Raise ValueError unless a saved state fits."""
        owner = type(self).__name__
        if not isinstance(saved, dict) or saved.get("scheduler") != owner:
            what = saved.get("scheduler", "something else") if isinstance(saved, dict) else type(saved).__name__
            raise ValueError(f"{owner}: this is the state of {what}, not of {owner}")
        if saved.keys() != (keys := {*vars(self), "scheduler", "now", "put"} - UNSAVED):
            raise ValueError(f"{owner}: the saved state has no {', '.join(sorted(keys - saved.keys())) or 'gaps'}, and "
                             f"has {', '.join(sorted(saved.keys() - keys)) or 'nothing'} besides")
        if len(saved["now"]) != len(self.optimizer.param_groups):
            raise ValueError(f"{owner}: has {len(self.optimizer.param_groups)} groups, the saved state "
                             f"{len(saved['now'])}")
        for key, value in vars(self).items():
            if isinstance(value, (list, tuple)) and any(isinstance(item, HyperScheduler) for item in value):
                if len(value) != len(saved[key]):
                    raise ValueError(f"{owner}: holds {len(value)} schedulers, the saved state {len(saved[key])}")
                for child, state in zip(value, saved[key]):
                    child.check_state(state)


class LRScheduler(HyperScheduler):
    """Base of every learning-rate scheduler: a HyperScheduler of "lr".

    Parameters
    ----------
    optimizer : Optimizer
        Whose learning rates to set.
    last_epoch : int, default -1
        The step before the first. Otherwise the groups must hold `initial_lr`.

    Raises
    ------
    TypeError, KeyError
        When it is no optimizer, or has no `initial_lr` to go on from.

    Notes
    -----
    To write your own, give `schedule`, the factors as a pure function of the step; or a `formula` that makes one
    of `settings`, the names of attributes; or, as in torch, `get_lr()`, which returns a list of values computed
    from `last_epoch` and `base_lrs`.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> from tinygrad_opt.optim.lr_scheduler import LRScheduler
    >>> from tinygrad_opt.optim.schedule import cosine, warmup
    >>> class Mine(LRScheduler):
    ...     schedule = warmup(2) >> cosine(10)
    >>> w = tg.zeros(3, requires_grad=True)
    >>> Mine(tg.optim.SGD([w], lr=0.1)).table(4)
    t  lr
    0  0
    1  0.05
    2  0.1
    3  0.0975528
    """

    chainable = False
    formula: ClassVar[Callable[..., Schedule] | None] = None
    settings: ClassVar[tuple[str, ...]] = ()
    _settings: list | None = None

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        self._attach(optimizer, "lr", last_epoch)

    @property
    def schedule(self) -> Schedule | None:
        """The factors, as a pure function of the step; those of a floor are the share of what lies above it."""
        settings = [getattr(self, name) for name in self.settings]
        if settings != self._settings:                      # they come with a saved state, or someone sets them
            self._settings, self._schedule = settings, type(self).formula(*settings) if type(self).formula else None
        return self._schedule

    @property
    def base_lrs(self) -> list[float]:
        """The learning rate of each group that the schedule multiplies; changes from outside are folded in."""
        return self.bases

    def share(self, t: float, k: int) -> float:
        """Return what the base of group k is multiplied by at step t."""
        schedule = self.schedule
        if schedule is not None:
            return schedule(t)
        if type(self).get_lr is LRScheduler.get_lr:
            raise NotImplementedError(f"{type(self).__name__} needs a schedule, a formula or a method get_lr()")
        return self._written[k] / self.bases[k] if self.bases[k] else 0.0       # of its own get_lr, all that is known

    def get_lr(self) -> list[float]:
        """Return the values of the present step; what a user wants is `get_last_lr`."""
        return super()._values()

    def _values(self) -> list[float]:
        return [float(value) for value in self.get_lr()]


def _numbers(values: list[float]) -> str:
    return ", ".join(f"{value:.6g}" for value in values)


def groups_of(optimizer: Any) -> list[dict[str, Any]]:
    """Return the groups of an optimizer, or raise TypeError."""
    groups = getattr(optimizer, "param_groups", None)
    if not isinstance(groups, list):
        raise TypeError(f"{type(optimizer).__name__} is not an Optimizer")
    return groups


def per_group(name: str, optimizer: Any, value: Any) -> list[Any]:
    """Return one value for each group, given one for all or a list."""
    count = len(groups_of(optimizer))
    if not isinstance(value, (list, tuple)):
        return [value] * count
    if len(value) != count:
        raise ValueError(f"{name} must have the same length as optimizer.param_groups. {name} has {len(value)} values, "
                         f"param_groups has {count}.")
    return list(value)


def functions(name: str, optimizer: Any, fn: Any) -> list[Callable]:
    """Return one function for each group, or raise."""
    count = len(groups_of(optimizer))
    if isinstance(fn, (list, tuple)) and len(fn) != count:
        raise ValueError(f"Expected {count} {name}s, but got {len(fn)}")
    fns = per_group(name, optimizer, fn)
    for function in fns:
        if not callable(function):
            raise TypeError(f"{name} should be a function, but got {type(function).__name__}")
    return fns


def _place(group: dict[str, Any], key: str) -> tuple[str, int | None]:
    """Return where a group holds an option: `lr` under its name, `beta2` as the second of `betas`."""
    if key in group:
        return key, None
    stem = key.rstrip("0123456789")
    return (stem + "s", int(key[len(stem):]) - 1) if stem != key and stem + "s" in group else (key, None)


def _read(scheduler: HyperScheduler, group: dict[str, Any], k: int) -> float:
    name, place = _place(group, scheduler.key)
    owner = type(scheduler).__name__
    if name not in group:
        raise ValueError(f"{owner}: group {k} has no option {scheduler.key!r}; it has "
                         f"{', '.join(key for key in group if key not in ('params', 'param_names'))}")
    value = group[name] if place is None else group[name][place]
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{owner}: {scheduler.key} of group {k} must be a number, got {value!r}") from None
