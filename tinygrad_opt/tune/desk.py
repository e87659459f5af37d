"""The desk of a search: it hands trials out, hears how they fare, and keeps the book, which is an Optuna study."""

from __future__ import annotations

import math
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike, fspath
from typing import Any

from .spaces import Choice, Interval, Space, draw
from .trials import GO_ON, PRUNE, STOP, Trial, TrialRecord, show

LOCK = threading.RLock()                            # over what is global in Optuna and in warnings
INSTALL = "pip install 'tinygrad-opt[tune]' installs it"


def load_optuna() -> Any:
    """Return Optuna, or say how it is installed."""
    try:
        import optuna
    except ImportError as error:
        raise ImportError(f"tinygrad_opt.tune searches by Optuna, which is not installed: {error}. "
                          f"{INSTALL}") from error
    return optuna


@contextmanager
def quiet() -> Iterator[Any]:
    """Give Optuna inside, silent: what it has to say, the search says."""
    optuna = load_optuna()
    with LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        before = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            yield optuna
        finally:
            optuna.logging.set_verbosity(before)


class Desk:
    """A study with its limits.

    Parameters
    ----------
    study : optuna.Study
    space : dict
        As `read_space` returns it.
    trials : int
        How many there are to be in all.
    budget : float
        How many gradients may be spent in all.
    seed : int
    bar : tqdm
        Moved on by each trial.
    """

    def __init__(self, study: Any, space: Space, trials: int, budget: float, seed: int, bar: Any) -> None:
        self.study, self.space, self.trials, self.budget, self.seed, self.bar = study, space, trials, budget, seed, bar
        self.minimize = study.direction.name == "MINIMIZE"
        self.finished = 0
        self.gradients = sum(trial.user_attrs.get("gradients", 0) for trial in study.get_trials(deepcopy=False))
        self.running: dict[int, Any] = {}                   # trials of Optuna, by number
        self.best: float | None = None
        for record in self.records():
            self._count(record)

    @property
    def worst(self) -> float:
        """What a value that is no number counts as."""
        return math.inf if self.minimize else -math.inf

    @property
    def room(self) -> int:
        """How many trials may begin now."""
        return 0 if self.gradients >= self.budget else self.trials - self.finished - len(self.running)

    def ask(self, worker: int) -> Trial:
        """Begin a trial.

        What it draws depends on the seed, on what has been finished and on who asks: a search that was stopped
        goes on as if it had not been.
        """
        from numpy.random import SeedSequence
        with quiet() as optuna:
            seed = int(SeedSequence([self.seed, self.finished, worker]).generate_state(1)[0])
            self.study.sampler = optuna.samplers.TPESampler(
                seed=seed, multivariate=True, group=True, constant_liar=True)
            asked = self.study.ask()
            values = draw(self.space, lambda name, part: _suggest(asked, name, part))
        self.running[asked.number] = asked
        return Trial(asked.number, values, lambda step, value, spent: self.hear(asked.number, step, value, spent),
                     self.budget - self.gradients)

    def hear(self, number: int, step: int, value: float, gradients: int) -> str:
        """Note what a running trial reports, and answer whether it may go on."""
        asked = self.running[number]
        asked.report(value, step)
        asked.set_user_attr("gradients", gradients)         # so that nothing spent is forgotten when it is killed
        if gradients > self.budget - self.gradients:
            return STOP
        return PRUNE if asked.should_prune() else GO_ON

    def tell(self, record: TrialRecord) -> None:
        """Finish a trial."""
        asked = self.running.pop(record.number)
        known = self.study.get_trials(deepcopy=False)[record.number].intermediate_values
        for step in record.reports.keys() - known.keys():   # heard by another rank
            asked.report(record.reports[step], step)
        asked.set_user_attr("gradients", record.gradients)
        asked.set_user_attr("seconds", record.seconds)
        with quiet() as optuna:
            if record.state == "complete":
                self.study.tell(asked, record.value)
            else:
                self.study.tell(asked, state=optuna.trial.TrialState.PRUNED)
        self.gradients += record.gradients
        self._count(record)
        self.bar.update()

    def _count(self, record: TrialRecord) -> None:
        self.finished += 1
        better = (self.best is None or (record.value < self.best) == self.minimize) and record.state == "complete"
        if better:
            self.best = record.value
            self.bar.set_postfix_str(f"best {record.value:.4g} with {show(record.values)}", refresh=False)

    def records(self) -> list[TrialRecord]:
        """Return the records of all finished trials, in order."""
        found = []
        for trial in self.study.get_trials(deepcopy=False):
            state = trial.state.name.lower()
            if state in ("complete", "pruned"):
                values = draw(self.space, lambda name, part, params=trial.params: params[name])
                found.append(TrialRecord(
                    trial.number, values, state, math.nan if trial.value is None else trial.value,
                    dict(sorted(trial.intermediate_values.items())), trial.user_attrs.get("gradients", 0),
                    trial.user_attrs.get("seconds", 0.0)))
        return found


def _suggest(asked: Any, name: str, part: Interval | Choice) -> Any:
    if isinstance(part, Choice):
        return asked.suggest_categorical(name, list(part.options))
    suggest = asked.suggest_int if part.whole else asked.suggest_float
    return suggest(name, part.low, part.high, log=part.log)


# ---- the study ------------------------------------------------------------------------------------------------------


def open_study(name: str, direction: str, space: Space, pruner: Any, storage: str | PathLike | None) -> Any:
    """Return a new study, or the one of this name that lies in a storage, to go on with.

    Raises
    ------
    ValueError
        When that one has another direction or space.
    """
    with quiet() as optuna:
        study = optuna.create_study(study_name=name, direction=direction, pruner=pruner, storage=_open(storage),
                                    load_if_exists=True)
        known = {"direction": study.direction.name.lower(), "space": study.user_attrs.get("space", repr(space))}
        for what, given in (("direction", direction), ("space", repr(space))):
            if known[what] != given:
                raise ValueError(f"the search {name!r} in {storage} has the {what} {known[what]}, not {given}; give "
                                 "another name, or another storage")
        study.set_user_attr("space", repr(space))
        for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)        # of a search that was killed
    return study


def _open(storage: str | PathLike | None) -> Any:
    """Return what Optuna keeps a study in: a database where a URL is given, else a file of lines."""
    if storage is None or "://" in str(storage):
        return storage
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend
    return JournalStorage(JournalFileBackend(fspath(storage)))


def make_pruner(prune: Any) -> Any:
    """Return the pruner that is meant: none, successive halving, or one of Optuna's own."""
    with quiet() as optuna:
        if prune is False:
            return optuna.pruners.NopPruner()
        if prune is True:
            return optuna.pruners.SuccessiveHalvingPruner()
        if isinstance(prune, int):
            if prune < 2:
                raise ValueError(f"prune: of so many trials one goes on, at least 2; got {prune}")
            return optuna.pruners.SuccessiveHalvingPruner(reduction_factor=prune)
        if isinstance(prune, optuna.pruners.BasePruner):
            return prune
    raise TypeError(f"prune must be True, False, a whole number or a pruner of Optuna; got {prune!r}")
