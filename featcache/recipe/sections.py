"""The sections of a recipe: which settings there are, their defaults and their limits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    ValidationError,
    model_validator,
)

from featcache.recipe.grouping import GroupRule
from featcache.recipe.names import check_head_name

Share = Annotated[float, Field(ge=0.0, le=1.0, strict=True)]
Size = Annotated[int, Field(ge=8, le=4096, strict=True)]
Seed = Annotated[int, Field(ge=0, lt=2**32, strict=True)]
Number = Annotated[int, Field(strict=True)] | Annotated[float, Field(strict=True, allow_inf_nan=False)]


def _as_pair(value: Any) -> Any:
    """Read one number as a square: 160 is (160, 160)."""
    return (value, value) if isinstance(value, int) and not isinstance(value, bool) else value


def _without_nul(path: Path) -> Path:
    if "\0" in str(path):
        raise ValueError("a path must not contain NUL characters")
    return path


MAX_PIXELS = 89_478_485
"""Default of ``base.max_pixels``: that of Pillow, a quarter of a gigabyte in RGB."""


def _as_range(value: Any) -> Any:
    """Check the values of photos that become 0 and 255."""
    if isinstance(value, str) and value in ("full", "minmax"):
        return value
    if isinstance(value, list | tuple) and len(value) == 2:
        low, high = value
        numbers = all(isinstance(one, int | float) and not isinstance(one, bool) for one in value)
        if numbers and math.isfinite(high - low) and low < high:
            return float(low), float(high)
    found = f"; found {value!r}" if isinstance(value, list | tuple) else ""
    raise ValueError(f'give "full", "minmax" or [low, high], low below high, such as [0, 4095]{found}')


PlainPath = Annotated[Path, AfterValidator(_without_nul)]


class Section(BaseModel):
    """A table of a recipe: unknown keys are rejected, values are immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SplitShares(Section):
    """Fractions of the photos for each split of an undivided folder; they must add up to 1."""

    train: Share = 0.8
    validation: Share = 0.2
    test: Share = 0.0

    @model_validator(mode="after")
    def _adds_up(self) -> SplitShares:
        total = self.train + self.validation + self.test
        if abs(total - 1.0) > 1e-6:
            raise ValueError(f"train, validation and test add up to {total:g}; they must add up to 1")
        if self.train == 0.0:
            raise ValueError("train is 0; there would be nothing to learn from")
        return self


class DataSettings(Section):
    """Where the photos are and how they are split.

    Exactly one of ``root`` (class folders, or ``train/`` with ``validation/`` and ``test/``),
    ``manifest`` (a CSV file with ``path,label`` and optionally ``split``) and ``train`` is given.
    With ``folds`` heads are scored by cross-validation on the photos of train and validation together.
    With ``rehash`` all photos are read again in every command: for network file systems whose times of files
    cannot be relied on.
    With ``skip_missing`` photos of a manifest that do not exist are skipped and listed like unreadable ones.
    ``group`` says which photos must not be divided, see `featcache.recipe.grouping.GroupRule`.
    """

    root: PlainPath | None = None
    manifest: PlainPath | None = None
    train: PlainPath | None = None
    validation: PlainPath | None = None
    test: PlainPath | None = None
    split: SplitShares = SplitShares()
    validation_from_train: Annotated[float, Field(gt=0.0, lt=1.0, strict=True)] = 0.2
    test_from_validation: Annotated[float, Field(ge=0.0, lt=1.0, strict=True)] = 0.0
    seed: Seed = 0
    strict: StrictBool = False
    rehash: StrictBool = False
    skip_missing: StrictBool = False
    folds: Annotated[int, Field(ge=2, le=100, strict=True)] | None = None
    group: GroupRule | None = None

    @model_validator(mode="after")
    def _one_source(self) -> DataSettings:
        given = [key for key in ("root", "manifest", "train") if getattr(self, key) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none of them"
            raise ValueError(f"give exactly one of root, manifest or train; found {found}")
        if self.train is None and (self.validation or self.test):
            raise ValueError("validation and test folders go with train = FOLDER")
        if self.manifest is not None and self.group == "folder":
            raise ValueError(
                'group = "folder" goes with class folders; give the manifest a column group, or a pattern'
            )
        return self


class BaseSettings(Section):
    """The frozen network: which one, up to which layer, and how photos are decoded and preprocessed for it.

    ``range`` says which values of photos with more than 8 bits per channel become 0 and 255,
    ``color_profile`` whether colours with an embedded profile are converted to sRGB. Photos with more than
    ``max_pixels`` pixels are refused.
    """

    name: str = "MobileNetV2"
    arguments: dict[str, Any] = {}
    weights: str = "imagenet"
    layer: str | None = None
    pooling: Literal["none", "avg", "max"] = "avg"
    image_size: Annotated[tuple[Size, Size], BeforeValidator(_as_pair)] = (160, 160)
    resize: Literal["stretch", "crop", "pad"] = "stretch"
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos", "box"] = "bilinear"
    range: Annotated[Literal["full", "minmax"] | tuple[float, float], BeforeValidator(_as_range)] = "full"
    color_profile: Literal["convert", "ignore"] = "convert"
    max_pixels: Annotated[int, Field(ge=1, le=2**31, strict=True)] = MAX_PIXELS
    preprocessing: Literal["auto", "rescale", "none"] = "auto"
    seed: Seed = 0
    engine: Literal["auto", "openvino", "tensorflow"] = "auto"
    precision: Literal["auto", "f32", "bf16"] = "auto"
    dtype: Literal["auto", "float16", "float32"] = "auto"
    batch_size: Annotated[int, Field(ge=1, le=4096, strict=True)] = 16


Metric = Literal["log_loss", "accuracy", "balanced_accuracy", "macro_f1", "roc_auc", "average_precision"]
"""Scores that heads can be compared by."""


class SelectionSettings(Section):
    """How the best head is chosen: by which score, and on which photos.

    Attributes
    ----------
    metric : str
        Heads, sweeps and fine-tuning go by it.
    method : {"auto", "validation", "cross_validation"}
        Whether heads are compared on the validation photos, or by cross-validation on the photos of train and
        validation, on all of which they are trained in the end. "auto" takes the latter where validation has
        few photos. ``data.folds`` is the number of folds, and asks for cross-validation where it is given.
    """

    metric: Metric = "log_loss"
    method: Literal["auto", "validation", "cross_validation"] = "auto"

    @property
    def asks_for_metric(self) -> bool:
        """Whether the metric was given, rather than left to the default."""
        return "metric" in self.model_fields_set


class AugmentSettings(Section):
    """Augmentation of the training photos: number of views and ranges of the transforms.

    Attributes
    ----------
    views : int
        Views of each training photo, the plain photo included: 8 means it and seven others.
    flip : bool
        Flip half of the views horizontally.
    rotation : float
        Largest rotation in either direction, as a fraction of a full turn: 0.2 is up to 72°.
    crop : (float, float)
        Smallest and largest fraction of the photo's area in a view.
    brightness, contrast : float
        x multiplies the photo's brightness or contrast by a factor from 1 - x to 1 + x.
    """

    views: Annotated[int, Field(ge=1, le=1000, strict=True)] = 8
    flip: StrictBool = False
    rotation: Annotated[float, Field(ge=0.0, le=0.5, strict=True)] = 0.0
    crop: tuple[Share, Share] = (1.0, 1.0)
    brightness: Share = 0.0
    contrast: Share = 0.0

    @model_validator(mode="after")
    def _varies_something(self) -> AugmentSettings:
        smallest, largest = self.crop
        if not 0.0 < smallest <= largest:
            raise ValueError(
                f"crop = [{smallest:g}, {largest:g}]; give the smallest and the largest share of the photo's "
                "area, above 0, such as [0.6, 1.0]"
            )
        if not (self.flip or self.rotation or smallest < 1.0 or self.brightness or self.contrast):
            raise ValueError(
                "there is nothing to vary; say flip = true, rotation = 0.2, crop = [0.6, 1.0], brightness or "
                "contrast, or leave [augment] out"
            )
        return self


class HeadSettings(BaseModel):
    """One head: ``type`` is one of featcache's own or of scikit-learn; further keys are its parameters.

    ``pooling``, ``pca`` (number of principal components of the pooled features) and ``scale`` come before the
    classifier; ``calibrate`` calibrates its probabilities on the validation photos. ``scale`` "l2" divides
    each row by its length, "standard" (or true) each feature by its standard deviation, "none" (or false)
    nothing.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    type: str
    name: str | None = None
    pooling: Literal["flatten", "avg", "max"] = "flatten"
    pca: Annotated[int, Field(ge=1, strict=True)] | None = None
    scale: StrictBool | Literal["auto", "l2", "standard", "none"] = "auto"
    calibrate: Literal["none", "temperature"] = "none"

    @property
    def parameters(self) -> dict[str, Any]:
        """Parameters of the classifier, by name."""
        return dict(self.model_extra or {})

    @property
    def scaling(self) -> str:
        """The scaling as a word: "auto", "l2", "standard" or "none"."""
        if isinstance(self.scale, bool):
            return "standard" if self.scale else "none"
        return self.scale

    @property
    def default_name(self) -> str:
        """Name of a head without ``name``: "linear", "dense-256", "SVC"."""
        if self.type != "dense":
            return self.type
        units = self.parameters.get("units", [])
        units = units if isinstance(units, Sequence) else [units]
        return "-".join(["dense", *map(str, units)]) if units else "linear"


DEFAULT_HEADS: tuple[dict[str, Any], ...] = (
    {"type": "logistic", "name": "LogisticRegression"},
    {"type": "dense", "units": [], "epochs": 50, "learning_rate": 1e-3},
    {"type": "dense", "units": [256], "dropout": 0.5, "epochs": 50, "learning_rate": 1e-3},
    {"type": "nearest-centroid"},
    {"type": "nearest-neighbors"},
)


_MOST_STEPS = 100_000


class Range(Section):
    """Numbers from ``low`` to ``high``, both included; integers if low, high and step are integers."""

    low: Number
    high: Number
    log: StrictBool = False
    step: Annotated[Number, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _makes_sense(self) -> Range:
        if self.low > self.high:
            raise ValueError(f"low = {self.low!r} is above high = {self.high!r}; exchange them")
        if self.log and self.low <= 0:
            raise ValueError(f"low = {self.low!r} with log = true; a logarithm needs low above 0")
        if self.log and self.step is not None:
            raise ValueError(f"step = {self.step!r} with log = true; give one of them")
        if self.step is not None and (self.high - self.low) / self.step > _MOST_STEPS:
            raise ValueError(
                f"step = {self.step!r} makes more than {_MOST_STEPS:,} steps; take a greater one"
            )
        return self

    @property
    def is_whole(self) -> bool:
        """Whether the range has integers only."""
        return all(isinstance(number, int) for number in (self.low, self.high, self.step or 0))

    @property
    def values(self) -> Sequence[int | float] | None:
        """All numbers of the range, in order; None for a continuous range."""
        if self.is_whole:
            return range(int(self.low), int(self.high) + 1, int(self.step or 1))
        if self.step is None:
            return None
        # in decimals, so that 0.1 to 0.3 by 0.1 has 0.3
        low, high, step = (Decimal(str(number)) for number in (self.low, self.high, self.step))
        return [float(low + number * step) for number in range(int((high - low) / step) + 1)]


def _as_parameter(value: Any) -> Any:
    """Read a table with keys of a range as one; any other value stays as it is."""
    known = list(Range.model_fields)
    if not isinstance(value, Mapping) or not set(known) & set(value):
        return value
    for key in value:
        if key not in known:
            raise ValueError(f"unknown key {key!r} in a range; it takes {', '.join(known)}")
    for key in ("low", "high"):
        if key not in value:
            raise ValueError(f"a range needs low and high; {key} is missing")
    try:
        return Range.model_validate(value)
    except ValidationError as error:
        raise ValueError(_explain_range(error)) from None


def _explain_range(error: ValidationError) -> str:
    # of a value that is neither, pydantic says first that it is no integer, last that it is no number
    one: dict[str, Any] = dict(error.errors()[-1])
    message = str(one["msg"]).removeprefix("Value error, ")
    if not one["loc"]:
        return message
    return f"{one['loc'][0]} = {one['input']!r}: {message[0].lower()}{message[1:]}"


class SpaceSettings(BaseModel):
    """One kind of head that a sweep searches: ``type`` as in a head, further keys are its parameters.

    A plain value is fixed, a list is a choice of its members (lists in it are choices too, as for
    ``units = [[], [128], [256, 64]]``; an empty list is a plain value), a table with ``low`` and ``high``
    is a `Range`.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, Annotated[Any, BeforeValidator(_as_parameter)]] = Field(init=False)

    type: str

    @property
    def parameters(self) -> dict[str, Any]:
        """Value, choices or range of each parameter, by name."""
        return dict(self.model_extra or {})

    @model_validator(mode="after")
    def _choices_differ(self) -> SpaceSettings:
        for key in ("name", "calibrate"):
            if key in self.parameters:
                raise ValueError(f"{key} is no parameter of a sweep; a head in [[heads]] takes it")
        for key, value in self.parameters.items():
            members = value if isinstance(value, list) else []
            twice = [member for at, member in enumerate(members) if member in members[:at]]
            if twice:
                raise ValueError(f"{key} = {value!r} has {twice[0]!r} twice; say each choice once")
        return self


_LEARNING: dict[str, Any] = {
    "type": "dense",
    "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
    "dropout": {"low": 0.0, "high": 0.6},
    "l2": {"low": 1e-6, "high": 1e-2, "log": True},
}
DEFAULT_SPACE: dict[str, dict[str, Any]] = {
    "logistic": {
        "type": "LogisticRegression",
        "C": {"low": 1e-4, "high": 10.0, "log": True},
        "max_iter": 1000,
    },
    "linear": {**_LEARNING, "units": []},
    "dense": {**_LEARNING, "units": [[128], [256]]},
}
DEFAULT_TRIALS = 50


class SweepSettings(Section):
    """The search over heads: budget, metric and search space.

    Without ``trials`` a grid is searched whole, and anything else with `DEFAULT_TRIALS` trials. Without
    ``seed`` the recipe's is used, without ``metric`` that of its section ``selection``.
    """

    trials: Annotated[int, Field(ge=1, strict=True)] | None = None
    metric: Metric | None = None
    sampler: Literal["tpe", "random", "grid"] = "tpe"
    timeout: Annotated[float, Field(gt=0, strict=True, allow_inf_nan=False)] | None = None
    seed: Seed | None = None
    space: Annotated[dict[str, SpaceSettings], Field(min_length=1)] = Field(
        default=DEFAULT_SPACE, validate_default=True
    )

    @model_validator(mode="after")
    def _names_and_grid(self) -> SweepSettings:
        for name, head in self.space.items():
            check_head_name(name)
            for key, value in head.parameters.items():
                if self.sampler == "grid" and isinstance(value, Range) and value.values is None:
                    raise ValueError(
                        f"sampler = 'grid' cannot try all of space.{name}.{key} = {{low = {value.low!r}, "
                        f"high = {value.high!r}}}; give it a step or a list, or take sampler = 'tpe'"
                    )
        return self


class FinetuneSettings(Section):
    """Fine-tuning: which layers of the base are trained together with a head, and how.

    They start at ``from_layer``, a layer's name, or at ``unfreeze_from``, its index as the Keras tutorials
    count. ``head`` names the trained Dense head to start from; without it the best Dense one is taken. With
    ``fresh_head`` its weights are drawn anew, which disturbs the base's weights in the first epochs.
    """

    from_layer: str | None = None
    unfreeze_from: Annotated[int, Field(ge=0, strict=True)] | None = None
    head: str | None = None
    fresh_head: Annotated[bool, Field(strict=True)] = False
    epochs: Annotated[int, Field(ge=1, strict=True)] = 10
    learning_rate: Annotated[float, Field(gt=0.0, strict=True, allow_inf_nan=False)] = 1e-5
    optimizer: Literal["adam", "rmsprop", "sgd"] = "rmsprop"
    momentum: Annotated[float, Field(ge=0.0, lt=1.0, strict=True)] = 0.0
    batch_size: Annotated[int, Field(ge=1, strict=True)] = 32

    @model_validator(mode="after")
    def _one_start(self) -> FinetuneSettings:
        given = [key for key in ("from_layer", "unfreeze_from") if getattr(self, key) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none of them"
            raise ValueError(f"give exactly one of from_layer and unfreeze_from; found {found}")
        if self.optimizer == "adam" and self.momentum > 0:
            raise ValueError("momentum goes with optimizer = 'sgd' and 'rmsprop', not with 'adam'")
        return self
