"""Searching: hyper-parameters by trial, with pruning and a budget in gradients, on one process or on many."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from os import PathLike
from typing import Any

from .desk import Desk, load_optuna, make_pruner, open_study
from .results import Search
from .spaces import read_space
from .trials import Trial, evaluate
from .workers import run_workers

DIRECTIONS = ("minimize", "maximize")


def search(objective: Callable[[Trial], float], space: Mapping[str, Any], trials: int = 50, seed: int = 0,
           direction: str = "minimize", prune: Any = True, budget: int | None = None,
           storage: str | PathLike | None = None, name: str | None = None, jobs: int = 1, world: Any = None,
           progress: bool = True) -> Search:
    """Find hyper-parameters by trying some out: at random at first, then where the good ones lie (Optuna's TPE).

    Parameters
    ----------
    objective : callable
        `objective(trial)` trains with `trial["lr"]` and so on, and returns a number. Between, `trial.report(value)`
        tells how good it is so far and ends the trial when others were better, and `trial.spend(gradients)` counts.
    space : dict
        By name, `tune.log(low, high)`, `tune.uniform(low, high)`, `tune.integer(low, high)`, or a list to choose from;
        `tune.choice({"sgd": {...}, "adam": {...}})` brings a space of its own with each option.
    trials : int, default 50
        How many in all, at least 1; those count that a storage holds already.
    seed : int, default 0
        The same seed gives the same trials, bit for bit, on one process and on as many ranks.
    direction : {"minimize", "maximize"}
    prune : bool, int or optuna.pruners.BasePruner, default True
        Whether to end trials by successive halving; of how many one goes on, 4 by default; or another pruner. Without
        reports it has no effect.
    budget : int, optional
        How many gradients may be spent in all, failed and pruned trials too. The trial that exceeds it is cut off;
        on several processes all that are running then.
    storage : path or URL, optional
        A file, or a database such as "sqlite:///search.db", where the search is kept. One that was stopped or killed
        is gone on with, by one process at a time, as if it never had been: a trial that was cut off is begun anew.
    name : str, optional
        Of the search, in the storage and in pictures; by default that of the objective.
    jobs : int, default 1
        How many processes try out, at least 1. They import the objective, so that it must be a function of a module,
        and a script needs its `if __name__ == "__main__":`.
    world : Communicator, optional
        Ranks of `tg.distributed` that all call this alike: each tries one out, and all return the same.
    progress : bool, default True
        Show a bar.

    Returns
    -------
    Search

    Raises
    ------
    ImportError
        When Optuna is not installed.
    TypeError, ValueError
        When an argument is none that can be; and what the objective raises, with the trial in a note.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> def objective(trial):
    ...     trace = tg.lab.record("sgd", "ravine", 30, **trial)
    ...     trial.spend(30)
    ...     return trace.loss[-1]
    >>> space = {"lr": tg.tune.log(1e-4, 1e-2), "momentum": tg.tune.uniform(0.0, 0.99)}
    >>> search = tg.tune.search(objective, space, trials=30, progress=False)
    >>> print(search.table().splitlines()[0])
    objective: 30 trials, 900 gradients; the lowest first
    >>> search.value < 1, sorted(search.best)
    (True, ['lr', 'momentum'])
    """
    load_optuna()
    if not callable(objective):
        raise TypeError(f"objective must be a function of a trial, got {type(objective).__name__}")
    if direction not in DIRECTIONS:
        raise ValueError(f"direction must be one of {', '.join(DIRECTIONS)}; got {direction!r}")
    for argument, value, least in (("trials", trials, 1), ("jobs", jobs, 1), ("seed", seed, 0)):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ValueError(f"{argument} must be a whole number of at least {least}, got {value!r}")
    if budget is not None and not budget > 0:
        raise ValueError(f"budget must be a number of gradients above 0, got {budget!r}")
    if world is not None and jobs > 1:
        raise ValueError("give jobs, processes of this machine, or world, ranks that are running; not both")
    space = read_space(space)
    name = name or getattr(objective, "__name__", type(objective).__name__)
    leads = world is None or world.rank == 0
    study = open_study(name, direction, space, make_pruner(prune), storage if leads else None)
    if world is not None:
        _share(study, world)
    with _bar(name, trials, progress and leads) as bar:
        desk = Desk(study, space, trials, math.inf if budget is None else budget, seed, bar)
        bar.update(desk.finished)
        if jobs > 1:
            run_workers(desk, objective, jobs)
        else:
            _run_rounds(desk, objective, world)
    return Search(name, direction, space, desk.records(), desk.gradients, study)


def _run_rounds(desk: Desk, objective: Callable[[Trial], float], world: Any) -> None:
    """Try one out on each rank, tell all of all, and again; without a world there is one rank."""
    rank, size = (0, 1) if world is None else (world.rank, world.size)
    while desk.room:
        asked = [desk.ask(k) for k in range(min(size, desk.room))]
        if world is None:
            desk.tell(evaluate(objective, asked[0], desk.worst))
            continue
        found = None
        if rank < len(asked):
            try:
                found = evaluate(objective, asked[rank], desk.worst)
            except Exception as error:              # all ranks must hear of it, or they would wait
                found = error
        results = world.gather_objects(found)[:len(asked)]
        error = found if isinstance(found, Exception) else next((r for r in results if isinstance(r, Exception)), None)
        if error is not None:
            raise error
        for result in results:
            desk.tell(result)


def _share(study: Any, world: Any) -> None:
    """Give all ranks the trials that rank 0 has from the storage, so that all keep one book."""
    known = world.gather_objects(study.get_trials() if world.rank == 0 else None)[0]
    if world.rank:
        study.add_trials(known)


def _bar(name: str, trials: int, shown: bool) -> Any:
    from tqdm import tqdm
    return tqdm(desc=name, total=trials, unit="trial", disable=not shown, leave=False)
