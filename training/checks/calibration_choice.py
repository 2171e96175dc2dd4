"""Which scaling and which thresholds: chosen by what they do on sessions that were left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

from training.checks.calibration_report import View
from training.metrics import calibration_fit as cf
from training.metrics.calibration import Scored
from training.metrics.operating_points import Goal, Objective
from training.metrics.scores import IndexArray

Wanted = Literal["auto", "none", "temperature", "platt"]
WantedObjective = Literal["auto", "f1", "cost", "recall_floor", "keep"]

# In simulation thresholds chosen for F1 lower the F1 of other sessions below about this many
# (docs/tools/calibrate.md).
SESSIONS_FOR_THRESHOLDS: Final = 15


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """What is fitted, why that, and what every method would have done on sessions left out."""

    recipe: cf.Recipe
    why: Mapping[str, str]
    """Why this `method` and this `objective`, where the run chose them."""
    crossed: cf.CrossFit | None
    """Cross-fitted with the recipe; None without folds."""
    methods: Mapping[str, View]


def choose(
    scored: Scored,
    fold: IndexArray | None,
    n_sessions: int,
    *,
    method: Wanted,
    objective: WantedObjective,
    recipe: cf.Recipe,
) -> Choice:
    """Choose the method and the objective that are left to choose; `recipe` holds the rest.

    The method is that with the smallest NLL on sessions left out, the simpler of equal ones. The
    thresholds are chosen for F1 where there are enough sessions and this lowers no macro F1 on
    sessions left out, and else keep every decision as it is. Without folds nothing shows that any
    fit helps, so that what is left to choose leaves the scores alone.

    Args:
        scored: the clips.
        fold: the fold of each clip [shape=(n_clips,)], or None.
        n_sessions: number of sessions that the folds divide.
        method: a name, or `auto`.
        objective: a name, or `auto`.
        recipe: the goal's numbers and `min_examples`.
    """
    goal = recipe.goal

    def with_goal(name: Objective) -> Goal:
        return Goal(
            objective=name, false_alarm_cost=goal.false_alarm_cost, min_recall=goal.min_recall
        )

    def cross(fold: IndexArray, name: cf.Method, chosen: Goal) -> cf.CrossFit:
        tried = cf.Recipe(method=name, goal=chosen, min_examples=recipe.min_examples)
        return cf.cross_fit(scored, fold, tried)

    why: dict[str, str] = {}
    aim: Objective = "keep" if objective == "auto" else objective
    if fold is None:
        name: cf.Method = "none" if method == "auto" else method
        why |= {"method": "no session to leave out"} if method == "auto" else {}
        why |= {"objective": "no session to leave out"} if objective == "auto" else {}
        final = cf.Recipe(method=name, goal=with_goal(aim), min_examples=recipe.min_examples)
        return Choice(recipe=final, why=why, crossed=None, methods={})
    tried = {each: cross(fold, each, with_goal(aim)) for each in get_args(cf.Method)}
    views = {each: _view(found) for each, found in tried.items()}
    name = "none" if method == "auto" else method
    if method == "auto":
        losses = {each: view.figures().nll for each, view in views.items()}
        known = {each: value for each, value in losses.items() if value is not None}
        if known:
            name = min(known, key=lambda each: known[each])
        why["method"] = "the smallest NLL on sessions left out"
    if objective == "auto":
        aim, why["objective"] = "keep", f"fewer than {SESSIONS_FOR_THRESHOLDS} sessions"
        if n_sessions >= SESSIONS_FOR_THRESHOLDS:
            better = {each: cross(fold, each, with_goal("f1")) for each in get_args(cf.Method)}
            scores = [_view(found[name]).summary().macro.f1 or 0.0 for found in (tried, better)]
            why["objective"] = "thresholds for F1 lower the macro F1 on sessions left out"
            if scores[1] >= scores[0]:
                aim, tried = "f1", better
                views = {each: _view(found) for each, found in tried.items()}
                why["objective"] = "thresholds for F1 hold on sessions left out"
    final = cf.Recipe(method=name, goal=with_goal(aim), min_examples=recipe.min_examples)
    return Choice(recipe=final, why=why, crossed=tried[name], methods=views)


def _view(found: cf.CrossFit) -> View:
    return View("cross-fitted", "after", found.scored, found.predicted)
