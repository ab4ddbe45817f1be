"""What a search may try: kinds of heads, their parameters, and how a trial becomes a head's settings."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from featcache.errors import RecipeError
from featcache.heads.estimators import build_head
from featcache.recipe import HeadSettings, Range, SpaceSettings

if TYPE_CHECKING:
    from optuna import Trial

KIND = "head"
"""The parameter that says which kind of head a trial is; the others are called KIND.PARAMETER."""

MOST_IN_A_GRID = 10_000

Params = dict[str, Any]
"""A trial's parameters under their full names, as Optuna keeps them: numbers, text, true and false."""


@dataclass(frozen=True)
class _Kind:
    """One kind of head: its type, fixed parameters and searched ones."""

    type: str
    fixed: Mapping[str, Any]
    searched: Mapping[str, Range | tuple[Any, ...]]

    @classmethod
    def of(cls, said: SpaceSettings) -> _Kind:
        fixed: dict[str, Any] = {}
        searched: dict[str, Range | tuple[Any, ...]] = {}
        for key, value in said.parameters.items():
            if isinstance(value, Range):
                searched[key] = value
            elif isinstance(value, list) and value:
                searched[key] = tuple(value)
            else:
                fixed[key] = value
        return cls(said.type, fixed, searched)

    @property
    def size(self) -> int | None:
        """How many different heads of this kind there are; None when there is no end to them."""
        sizes = [values.values if isinstance(values, Range) else values for values in self.searched.values()]
        return None if None in sizes else math.prod(len(size) for size in sizes if size is not None)


class SearchSpace:
    """All that a search may try.

    Parameters
    ----------
    said : mapping of str to SpaceSettings
        A recipe's ``sweep.space``.
    """

    def __init__(self, said: Mapping[str, SpaceSettings]) -> None:
        self._kinds = {name: _Kind.of(kind) for name, kind in said.items()}

    def suggest(self, trial: Trial) -> None:
        """Let `trial` draw a kind of head, and then the parameters of that kind."""
        kind = trial.suggest_categorical(KIND, list(self._kinds))
        for key, values in self._kinds[kind].searched.items():
            name = f"{kind}.{key}"
            if not isinstance(values, Range):
                trial.suggest_categorical(name, [_label(value) for value in values])
            elif values.is_whole:
                step = int(values.step or 1)
                trial.suggest_int(name, int(values.low), _last(values), log=values.log, step=step)
            else:
                trial.suggest_float(name, values.low, _last(values), log=values.log, step=values.step)

    def settings(self, params: Mapping[str, Any]) -> HeadSettings:
        """Return the settings of the head that a trial's parameters stand for, named after its kind.

        Raises
        ------
        RecipeError
            A parameter has a value that no head takes.
        """
        kind = params[KIND]
        return self._with(kind, self.searched(params))

    def searched(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of the parameters that were searched, under their short names."""
        kind = self._kinds[params[KIND]]
        found = {}
        for key, values in kind.searched.items():
            value = params[f"{params[KIND]}.{key}"]
            found[key] = value if isinstance(values, Range) else {_label(v): v for v in values}[value]
        return found

    @property
    def size(self) -> int | None:
        """How many different heads there are; None when there is no end to them."""
        sizes = [kind.size for kind in self._kinds.values()]
        return None if None in sizes else sum(size for size in sizes if size is not None)

    def some_left(self, tried: Iterable[str]) -> list[str]:
        """Return the kinds of which not all heads were tried; `tried` has the kind of each that was."""
        counts = Counter(tried)
        return [name for name, kind in self._kinds.items() if kind.size is None or counts[name] < kind.size]

    def grid(self) -> Iterator[Params]:
        """Yield the parameters of all different heads; the space must have a `size`."""
        for name, kind in self._kinds.items():
            keys = [f"{name}.{key}" for key in kind.searched]
            for values in product(*(_all(values) for values in kind.searched.values())):
                yield {KIND: name, **dict(zip(keys, values, strict=True))}

    def check(self, metric: str) -> None:
        """Build heads from all over the space, so that what cannot be is found before the search.

        Parameters
        ----------
        metric : str
            Heads that cannot be scored by it are refused as well.

        Raises
        ------
        RecipeError
            A type or a parameter is unknown, or a value is impossible whatever the other parameters are.
        """
        for name, kind in self._kinds.items():
            ends = {key: _ends(values) for key, values in kind.searched.items()}
            first = {key: values[0] for key, values in ends.items()}
            self._check_some(name, [first, *_with_another(first, ends)], metric)
            for key, values in ends.items():
                for value in values:
                    near = first | {key: value}
                    self._check_some(name, [near, *_with_another(near, ends, besides=key)], metric)

    def _check_some(self, name: str, settings: list[dict[str, Any]], metric: str) -> None:
        """Refuse when none of the settings makes a head; what the first one lacks is told."""
        refused = None
        for one in settings:
            try:
                head = build_head(self._with(name, one))
                if metric == "log_loss" and not hasattr(head, "predict_proba"):
                    raise RecipeError(
                        f"head {name!r}: {self._kinds[name].type} gives no probabilities, which "
                        "metric = 'log_loss' needs; take another metric or another head"
                    )
                return
            except RecipeError as error:
                refused = refused or error
        raise RecipeError(f"sweep.space.{name}: {refused}")

    def _with(self, name: str, searched: Mapping[str, Any]) -> HeadSettings:
        kind = self._kinds[name]
        try:
            return HeadSettings.model_validate({"type": kind.type, "name": name, **kind.fixed, **searched})
        except ValidationError as error:
            one = error.errors()[0]
            raise RecipeError(f"{one['loc'][0]} = {one['input']!r}: {one['msg']}") from None


def _with_another(
    settings: dict[str, Any], ends: Mapping[str, list[Any]], besides: str | None = None
) -> Iterator[dict[str, Any]]:
    """Yield `settings` with one parameter changed, for every value of every parameter but `besides`."""
    for key, values in ends.items():
        for value in values[1:] if key != besides else ():
            yield settings | {key: value}


def _label(value: Any) -> Any:
    """Return a choice as Optuna keeps it: scalars as they are, lists and tables as JSON."""
    return json.dumps(value) if isinstance(value, list | tuple | dict) else value


def _ends(values: Range | tuple[Any, ...]) -> list[Any]:
    return [values.low, values.high] if isinstance(values, Range) else list(values)


def _all(values: Range | tuple[Any, ...]) -> list[Any]:
    return list(values.values or ()) if isinstance(values, Range) else [_label(value) for value in values]


def _last(values: Range) -> Any:
    """Return the greatest number of a range, which lies below ``high`` when steps do not reach it."""
    steps = values.values
    return values.high if steps is None else steps[-1]
