"""The search space: kinds of heads, their parameters, and how a trial becomes the settings of a head."""

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
from featcache.evaluation.choosing import missing_for
from featcache.heads.estimators import build_head
from featcache.recipe import HeadSettings, Range, SpaceSettings

if TYPE_CHECKING:
    from optuna import Trial

KIND = "head"
"""The parameter with the kind of head; the others are named KIND.PARAMETER."""

MOST_IN_A_GRID = 10_000

Params = dict[str, Any]
"""A trial's parameters by their full names, as Optuna stores them: numbers, strings and booleans."""


@dataclass(frozen=True)
class _Kind:
    """One kind of head: its type, its fixed and its searched parameters."""

    type: str
    fixed: Mapping[str, Any]
    searched: Mapping[str, Range | tuple[Any, ...]]

    @classmethod
    def of(cls, settings: SpaceSettings) -> _Kind:
        fixed: dict[str, Any] = {}
        searched: dict[str, Range | tuple[Any, ...]] = {}
        for key, value in settings.parameters.items():
            if isinstance(value, Range):
                searched[key] = value
            elif isinstance(value, list) and value:
                searched[key] = tuple(value)
            else:
                fixed[key] = value
        return cls(settings.type, fixed, searched)

    @property
    def size(self) -> int | None:
        """Number of different heads of this kind; None where a parameter is continuous."""
        sizes = [values.values if isinstance(values, Range) else values for values in self.searched.values()]
        return None if None in sizes else math.prod(len(size) for size in sizes if size is not None)


class SearchSpace:
    """The space of heads that a search samples from.

    Parameters
    ----------
    kinds : mapping of str to SpaceSettings
        A recipe's ``sweep.space``.
    """

    def __init__(self, kinds: Mapping[str, SpaceSettings]) -> None:
        self._kinds = {name: _Kind.of(kind) for name, kind in kinds.items()}

    def suggest(self, trial: Trial) -> None:
        """Sample a kind of head with `trial`, then the parameters of that kind."""
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
        """Return the settings of the head with a trial's parameters, named after its kind.

        Raises
        ------
        RecipeError
            A parameter has a value that the head does not accept.
        """
        kind = params[KIND]
        return self._with(kind, self.searched(params))

    def searched(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of the searched parameters by their short names."""
        kind = self._kinds[params[KIND]]
        found = {}
        for key, values in kind.searched.items():
            value = params[f"{params[KIND]}.{key}"]
            found[key] = value if isinstance(values, Range) else {_label(v): v for v in values}[value]
        return found

    @property
    def size(self) -> int | None:
        """Number of different heads; None where a parameter is continuous."""
        sizes = [kind.size for kind in self._kinds.values()]
        return None if None in sizes else sum(size for size in sizes if size is not None)

    def some_left(self, tried: Iterable[str]) -> list[str]:
        """Return the kinds with untried heads; `tried` has the kind of each head that was tried."""
        counts = Counter(tried)
        return [name for name, kind in self._kinds.items() if kind.size is None or counts[name] < kind.size]

    def grid(self) -> Iterator[Params]:
        """Yield the parameters of all different heads; the space must be finite."""
        for name, kind in self._kinds.items():
            keys = [f"{name}.{key}" for key in kind.searched]
            for values in product(*(_all(values) for values in kind.searched.values())):
                yield {KIND: name, **dict(zip(keys, values, strict=True))}

    def check(self, metric: str, classes: int = 2) -> None:
        """Build heads from all parts of the space, so that invalid settings are found before the search.

        Parameters
        ----------
        metric : str
            Heads that cannot be scored by it are refused, too.
        classes : int
            Number of classes; 2 while it is not known, since heads for more can be scored on two as well.

        Raises
        ------
        RecipeError
            A type or a parameter is unknown, or a value is invalid for all values of the other parameters.
        """
        for name, kind in self._kinds.items():
            ends = {key: _ends(values) for key, values in kind.searched.items()}
            first = {key: values[0] for key, values in ends.items()}
            self._check_some(name, [first, *_with_another(first, ends)], metric, classes)
            for key, values in ends.items():
                for value in values:
                    near = first | {key: value}
                    others = [near, *_with_another(near, ends, besides=key)]
                    self._check_some(name, others, metric, classes)

    def _check_some(self, name: str, settings: list[dict[str, Any]], metric: str, classes: int) -> None:
        """Raise the first error where none of the settings makes a head."""
        refused = None
        for one in settings:
            try:
                missing = missing_for(metric, build_head(self._with(name, one)), classes)
                if missing is None:
                    return
                kind = self._kinds[name].type
                raise RecipeError(
                    f"head {name!r}: {kind} has {missing}, which metric = {metric!r} needs; choose another "
                    f"metric, other parameters of {kind} or another head"
                )
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
    """Yield `settings` with one parameter changed, for every value of every parameter except `besides`."""
    for key, values in ends.items():
        for value in values[1:] if key != besides else ():
            yield settings | {key: value}


def _label(value: Any) -> Any:
    """Return a choice as Optuna stores it: scalars unchanged, lists and tables as JSON."""
    return json.dumps(value) if isinstance(value, list | tuple | dict) else value


def _ends(values: Range | tuple[Any, ...]) -> list[Any]:
    return [values.low, values.high] if isinstance(values, Range) else list(values)


def _all(values: Range | tuple[Any, ...]) -> list[Any]:
    return list(values.values or ()) if isinstance(values, Range) else [_label(value) for value in values]


def _last(values: Range) -> Any:
    """Return the largest number of a range, which is below ``high`` where steps do not reach it."""
    steps = values.values
    return values.high if steps is None else steps[-1]
