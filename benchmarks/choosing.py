"""Which rule finds the best head: accuracy or log loss, on validation or by cross-validation.

    python -m benchmarks.choosing --sets SETS --draws 20

Photos are drawn from seven sets, 11 heads are fitted, and each rule chooses one of them. The table shows by
how much that head is worse on test than the best one. Draws are kept in ``SETS/choosing.jsonl``; what is
there is not computed again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from threadpoolctl import threadpool_limits

from benchmarks.choosing_fits import CANDIDATES, draw_rows, score_heads
from benchmarks.choosing_rules import RULES, Draw, HeadScores, Regret, Rule, regret
from benchmarks.machine import in_words, machine
from benchmarks.output import console, save
from benchmarks.sets import SETS, FeatureSet, feature_set

SIZES = (100, 400, 0)
"""Photos of a pool; 0 is all, six tenths of the set."""

SMALL = 300
"""Validation photos below which a set is small."""

GROUPS = {"small": f"below {SMALL}", "large": f"{SMALL} and more", "all": "all"}
"""Groups of sets and sizes, by validation photos."""

_ALL = 0.6
_FEWEST_EXPECTED = 9  # photos of the rarest class in a pool

Key = tuple[str, int, int]
"""Set, size and number of a draw."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=Path, required=True, help="folder of the sets; made where missing")
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--only", action="append", choices=SETS, help="a set; may be repeated")
    parser.add_argument("--size", action="append", type=int, choices=SIZES, help="0 is all; may be repeated")
    parser.add_argument("--repeats", type=int, default=1, help="of the cross-validation; rule e needs 3")
    parser.add_argument("--table", action="store_true", help="compute nothing; show what is there")
    parser.add_argument("--keep", action="store_true", help="only compute and keep draws; show nothing")
    parser.add_argument("--markdown", action="store_true", help="print the table for docs/choosing.md, too")
    arguments = parser.parse_args()
    facts = machine()
    names = arguments.only or list(SETS)
    journal = arguments.sets / "choosing.jsonl"
    if not arguments.table:
        wanted = list(_wanted(names, arguments.size or SIZES, arguments.draws))
        _run(wanted, arguments.repeats, arguments.sets, journal)
        if arguments.keep:
            return
    draws = {key: draw for key, draw in read(journal).items() if key[0] in names}
    summaries = summarize(draws)
    console().print(table(summaries))
    console().print(in_words(facts))
    if arguments.markdown:
        print(*markdown(summaries), sep="\n")
    if not arguments.table:
        result = {"machine": facts, "heads": list(CANDIDATES), "draws": _counts(draws), "rules": summaries}
        console().print(f"written: {save('choosing', result)}")


def _run(wanted: Iterable[Key], repeats: int, folder: Path, journal: Path) -> None:
    """Compute the draws that the journal lacks, or has with fewer repetitions."""
    done = read(journal) if journal.exists() else {}
    with journal.open("a", encoding="utf-8") as file, threadpool_limits(1):
        for key in wanted:
            name, size, draw = key
            found = _loaded(name, folder)
            if (key in done and _repeats(done[key]) >= repeats) or not _fits(found, size):
                continue
            started = time.monotonic()
            file.write(json.dumps(_record(found, key, repeats)) + "\n")
            file.flush()
            console().print(
                f"{name}, {size or 'all'} photos, draw {draw}: {time.monotonic() - started:.1f} s"
            )


_loaded = cache(feature_set)


def _wanted(names: Sequence[str], sizes: Sequence[int], draws: int) -> Iterator[Key]:
    """Give the draws in an order that lets the run be ended early: one of each set and size in turn."""
    return ((name, size, draw) for draw in range(draws) for size in sizes for name in names)


def _repeats(draw: Draw) -> int:
    return min(len(head.folds) for head in draw.values())


def _fits(found: FeatureSet, size: int) -> bool:
    rarest = np.bincount(found.y).min() / len(found.y)
    return size < _ALL * len(found.y) and (not size or rarest * size >= _FEWEST_EXPECTED)


def _record(found: FeatureSet, key: Key, repeats: int) -> dict[str, Any]:
    name, size, draw = key
    rows = draw_rows(found.y, size or round(_ALL * len(found.y)), draw)
    heads = score_heads(found, rows, repeats, draw)
    return {
        "set": name,
        "size": size,
        "draw": draw,
        "heads": {head: scores.to_json() for head, scores in heads.items()},
    }


def read(journal: Path) -> dict[Key, Draw]:
    """Return the draws of a journal."""
    draws: dict[Key, Draw] = {}
    for line in journal.read_text(encoding="utf-8").splitlines():
        one = json.loads(line)
        heads = {name: HeadScores.from_json(scores) for name, scores in one["heads"].items()}
        draws[one["set"], one["size"], one["draw"]] = heads
    return draws


def validation_photos(draw: Draw) -> int:
    """Return the number of validation photos of a draw."""
    correct = next(iter(draw.values())).validation.correct
    assert correct is not None
    return len(correct)


def summarize(draws: Mapping[Key, Draw]) -> dict[str, dict[str, Any]]:
    """Return for small, large and all sets the figures of every rule.

    Every set and size counts the same, however many draws it has.
    """
    cases: dict[tuple[str, int], list[Draw]] = {}
    for (name, size, _), draw in draws.items():
        cases.setdefault((name, size), []).append(draw)
    large = {key for key, found in cases.items() if np.mean([*map(validation_photos, found)]) >= SMALL}
    groups = {"small": cases.keys() - large, "large": large, "all": cases.keys()}
    return {
        group: {
            key: _figures(rule, [cases[case] for case in members])
            for key, rule in RULES.items()
            if all(_has(rule, cases[case]) for case in members)
        }
        for group, members in groups.items()
        if members
    }


def _has(rule: Rule, draws: Iterable[Draw]) -> bool:
    return all(_repeats(draw) >= rule.repeats for draw in draws)


def _figures(rule: Rule, cases: Sequence[Sequence[Draw]]) -> dict[str, Any]:
    """Return the means over the cases of the means over their draws."""
    means = [_means([regret(rule, draw) for draw in draws]) for draws in cases]
    return {"rule": rule.words} | {
        name: round(float(np.mean([one[name] for one in means])), 5) for name in means[0]
    }


def _means(regrets: Sequence[Regret]) -> dict[str, float]:
    return {name: float(np.mean([getattr(one, name) for one in regrets])) for name in Regret.__annotations__}


def _counts(draws: Mapping[Key, Draw]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name, size, _ in draws:
        key = f"{name} {size or 'all'}"
        counts[key] = counts.get(key, 0) + 1
    return counts


def markdown(summaries: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Iterator[str]:
    """Give the lines of the table in ``docs/choosing.md``, with regrets against the best of all heads."""
    yield "| validation photos | rule | log loss | accuracy | regret: log loss | accuracy | best taken |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for group, rules in summaries.items():
        for key, one in rules.items():
            losses = f"{one['log_loss']:.3f} | {one['accuracy']:.2%} | {one['log_loss_any']:.4f}"
            shares = f"{one['accuracy_any']:.2%} | {one['is_best']:.0%}"
            yield f"| {GROUPS[group]} | {key}: {one['rule']} | {losses} | {shares} |"


def table(summaries: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Table:
    """Return the table of all rules."""
    shown = Table(
        *("sets", "rule", "log loss", "accuracy", "regret: log loss", "accuracy", "against all: log loss"),
        *("accuracy", "best taken"),
        title="Scores of the chosen head on test",
    )
    for group, rules in summaries.items():
        for key, one in rules.items():
            losses = [f"{one[name]:.4f}" for name in ("log_loss", "log_loss_same", "log_loss_any")]
            shares = [f"{one[name]:.2%}" for name in ("accuracy", "accuracy_same", "accuracy_any", "is_best")]
            pairs = [cell for pair in zip(losses, shares, strict=False) for cell in pair]
            shown.add_row(group, f"{key}  {one['rule']}", *pairs, shares[-1])
        shown.add_section()
    return shown


if __name__ == "__main__":
    main()
