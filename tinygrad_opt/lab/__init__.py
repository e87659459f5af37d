"""The laboratory: instruments that show what an optimizer does, all of them readers of one record of a run."""

from importlib import import_module as _import

# These are read when they are first asked for; each file is one instrument.
_LATER = {
    **dict.fromkeys(("Trace", "record"), "traces"),
    **dict.fromkeys(("Graph", "GraphEdge", "GraphNode", "draw_graph"), "drawing.graphs"),
    **dict.fromkeys(("Movement", "explain", "who_moved"), "movement"),
    "Monitor": "training.monitors", "TrainingRecord": "training.training_record", "draw_training": "training.strips",
    "LiveCurve": "training.live", "JsonLines": "training.logs",
    **dict.fromkeys(("decision_region", "draw_decision"), "training.decision"),
    **dict.fromkeys(("Theory", "analyse"), "quadratics.theory"),
    "linear_map": "quadratics.linear_maps",
    **dict.fromkeys(("RateMap", "rate_map"), "quadratics.rate_maps"),
    **dict.fromkeys(("Interpolation", "Plane", "interpolate", "path_plane", "random_plane"), "landscapes"),
    **dict.fromkeys(("Fork", "Rewind", "fork"), "branches.forks"),
    **dict.fromkeys(("RateRange", "lr_find"), "training.rate_range"),
    **dict.fromkeys(("draw_schedule", "schedule_values"), "training.schedules"),
    **dict.fromkeys(("DIALECTS", "Dialects", "compare_dialects"), "school.dialects"),
    **dict.fromkeys(("PostMortem",), "branches.postmortem"),
    **dict.fromkeys(("Grade", "grade", "list_mutants"), "school.grader"), "Mutant": "school.mutants",
    **dict.fromkeys(("Failure", "failure", "failures"), "school.gallery"),
    **dict.fromkeys(("html_page",), "racing.pages"),
    **dict.fromkeys(("SURFACES", "Surface", "surface", "list_surfaces"), "surfaces"),
    "draw_curves": "curves",
    **dict.fromkeys(("draw_contour", "draw_descent", "draw_surface_3d"), "racing.contours"),
    **dict.fromkeys(("Race", "race"), "racing.races"),
    **dict.fromkeys(("to_gif",), "racing.animations"),
}
__all__ = list(_LATER)


def __getattr__(name: str):
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(_import(f".{_LATER[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
