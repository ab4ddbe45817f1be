"""Which of the heads that are tied with the best is recommended: the best ones are cross-validated."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from featcache.evaluation.bootstrap import WeightedMetrics, resampled_weights
from featcache.evaluation.choosing import goodness
from featcache.recipe import DEFAULT_HEADS, HeadSettings
from featcache.search.fitting import Job, run_trials
from featcache.search.leaderboard import Choice, Finished
from featcache.search.trial import Outcome, TrialRequest

MOST_COMPARED = 5
"""Tied heads that are cross-validated: those with the best scores, beside the default head."""

_RESAMPLES = 200

_DEFAULT_NUMBER = -1


def default_head() -> HeadSettings:
    """Return the settings of the head that people get who name none."""
    settings = HeadSettings.model_validate(DEFAULT_HEADS[0])
    return settings.model_copy(update={"name": settings.name or settings.default_name})


def finish_default(job: Job) -> tuple[Finished, Sequence[str]]:
    """Train and score the default head as a trial; return it and the warnings that it gave."""
    settings = default_head()
    ((_, outcome, warned),) = run_trials(job, [TrialRequest(_DEFAULT_NUMBER, settings)])
    return Finished(None, f"{settings.name} (default)", {}, outcome), warned


def metric_among_tied(metric: str) -> str:
    """Return what tied heads are compared by: accuracy tells them apart worse than log loss does."""
    return "log_loss" if metric == "accuracy" else metric


def choose(
    tied: Sequence[Finished], job: Job, settings: Mapping[int | None, HeadSettings], metric: str
) -> Choice:
    """Choose among heads that are tied with the best, by cross-validation.

    The best of the tied heads is taken. Where the default head is among them, another must be better than it
    by more than the standard error of the difference, found by resampling the photos or their groups (the
    one-standard-error rule of Breiman, Friedman, Olshen and Stone, Classification and regression trees,
    Wadsworth 1984, section 3.4.3).

    Parameters
    ----------
    tied : sequence of Finished
        The best first.
    job : Job
        With folds.
    settings : mapping
        Of the heads, by number of the trial; None is the default head.
    metric : str
        Of the sweep.
    """
    metric = metric_among_tied(metric)
    finalists = _finalists(tied, metric)
    if len(finalists) == 1:
        return Choice(finalists[0], metric)
    outcomes = _cross_validated(finalists, replace(job, metric=metric), settings)
    compared = [(one, out) for one, out in zip(finalists, outcomes, strict=True) if out.value is not None]
    if not compared:
        return Choice(finalists[0], metric)
    chosen, outcome = max(compared, key=lambda pair: goodness(pair[1].scores, metric))
    for one, of_default in compared:
        if one.trial is None and not _beats(outcome, of_default, metric):
            chosen = one
    values = tuple((one, float(out.scores[metric])) for one, out in compared)
    return Choice(chosen, metric, values, default_stands=chosen.trial is None)


def _finalists(tied: Sequence[Finished], metric: str) -> list[Finished]:
    """Return the tied heads to cross-validate; those without the metric only where no other is tied."""
    ordered = sorted(tied, key=lambda one: -goodness(one.outcome.scores, metric))
    with_metric = [one for one in ordered if goodness(one.outcome.scores, metric) > -math.inf] or ordered
    default = [one for one in with_metric if one.trial is None]
    return [one for one in with_metric if one.trial is not None][:MOST_COMPARED] + default


def _cross_validated(
    finalists: Sequence[Finished], job: Job, settings: Mapping[int | None, HeadSettings]
) -> Iterator[Outcome]:
    requests = [TrialRequest(place, settings[one.trial]) for place, one in enumerate(finalists)]
    outcomes = {place: outcome for place, outcome, _ in run_trials(job, requests)}
    return (outcomes[place] for place in range(len(finalists)))


def _beats(outcome: Outcome, default: Outcome, metric: str) -> bool:
    """Whether a head is better than the default head by more than the standard error of the difference."""
    predictions = [one.predictions for one in (outcome, default) if one.predictions is not None]
    measures = [WeightedMetrics(one) for one in predictions]
    differences = [
        np.subtract(*(measure(weights)[metric] for measure in measures))
        for weights in resampled_weights(predictions[0], _RESAMPLES, seed=0)
    ]
    error = float(np.nanstd(np.concatenate(differences)))
    return goodness(outcome.scores, metric) - goodness(default.scores, metric) > error
