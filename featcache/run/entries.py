"""What an entry of ``heads.json`` must be; what another program wrote is not believed."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from featcache.recipe import Metric
from featcache.recipe.names import check_folder_name

EARLIER_METRIC: Metric = "accuracy"
"""What earlier versions, whose files do not say it, chose the best head by."""

_Share = Annotated[float, Field(ge=0, le=1, strict=True)]
_Count = Annotated[int, Field(ge=0, strict=True)]


class _ClassScores(BaseModel):
    name: str = Field(alias="class")
    precision: _Share | None
    recall: _Share | None
    f1: _Share | None
    n: _Count


class _Scores(BaseModel):
    """The scores that commands show and compare; others may stand beside them."""

    model_config = ConfigDict(extra="allow")

    n: _Count
    accuracy: _Share
    accuracy_low: _Share
    accuracy_high: _Share
    balanced_accuracy: _Share
    macro_f1: _Share
    roc_auc: _Share | None
    log_loss: Annotated[float, Field(ge=0, strict=True, allow_inf_nan=False)] | None
    confusion: list[list[_Count]]
    per_class: list[_ClassScores]

    @model_validator(mode="after")
    def _confusion_is_square(self) -> _Scores:
        k = len(self.per_class)
        if [len(row) for row in self.confusion] != [k] * k:
            raise ValueError(f"confusion must have {k} rows of {k} numbers")
        return self


def _as_folder_name(name: str) -> str:
    check_folder_name(name)
    return name


_Name = Annotated[str, AfterValidator(_as_folder_name)]


class HeadEntry(BaseModel):
    """A trained head."""

    name: _Name
    fit_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    validation: _Scores
    test: _Scores | None = None
    trained_from: str = ""
    model_sha256: str = ""


class FailureEntry(BaseModel):
    """A head that could not be trained."""

    name: _Name
    reason: str


class _TestLooks(BaseModel):
    count: _Count = 0
    photos: Annotated[str, Field(max_length=64)] = ""


class SelectionEntry(BaseModel):
    """What ``heads.json`` says beside the heads; earlier versions write none of it."""

    metric: Metric = EARLIER_METRIC
    test_looks: _TestLooks = _TestLooks()


Entry = TypeVar("Entry", HeadEntry, FailureEntry)


def validated(kind: type[Entry], entry: Any) -> Entry:
    """Return an entry of ``heads.json`` as its type.

    Raises
    ------
    ValueError
        With the entry's name and the first thing that is wrong.
    """
    try:
        return kind.model_validate(entry)
    except ValidationError as error:
        one = error.errors()[0]
        key = ".".join(map(str, one["loc"]))
        name = entry.get("name") if isinstance(entry, dict) else entry
        reason = f"{key}: {one['msg']}" if key else one["msg"]
        raise ValueError(f"{str(name)[:100]!r} ({reason.splitlines()[0][:200]})") from None
