"""Validation errors of pydantic as sentences with the key, the value and what is allowed."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from featcache.errors import did_you_mean


def explain(error: ValidationError, model: type[BaseModel], origin: str) -> str:
    """Describe the first three errors, each with the key, the value and what is allowed."""
    return "; ".join(f"{origin}: {_explain_one(dict(one), model)}" for one in error.errors()[:3])


def _explain_one(one: dict[str, Any], model: type[BaseModel]) -> str:
    key = ".".join(map(str, one["loc"]))
    if one["type"] == "extra_forbidden":
        known = _known_keys(model, one["loc"][:-1])
        where = ".".join(map(str, one["loc"][:-1])) or "the recipe"
        name = str(one["loc"][-1])
        return f"unknown key {key!r}.{did_you_mean(name, known)} {where} takes {', '.join(known)}"
    if key == "heads" and one["type"] == "tuple_type":
        return "heads must be a list of tables: write [[heads]] above each one"
    if one["type"] == "missing":
        return f"{key} is missing"
    message = one["msg"].removeprefix("Value error, ")
    if not isinstance(one["input"], str | int | float | bool | None):
        return f"{key}: {message}" if key else message
    return f"{key} = {one['input']!r}: {message[0].lower()}{message[1:]}"


def _known_keys(model: Any, location: tuple[Any, ...]) -> list[str]:
    for part in location:
        if isinstance(part, str) and part in model.model_fields:
            annotation = model.model_fields[part].annotation
            for kind in (annotation, *get_args(annotation)):  # a section that may be missing is one of two
                if isinstance(kind, type) and issubclass(kind, BaseModel):
                    model = kind
    return list(model.model_fields)
