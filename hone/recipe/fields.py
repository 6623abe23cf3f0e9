"""The fields of a recipe: types, defaults, and what of them doesn't go together."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from hone.names import is_name
from hone.recipe.model import Reference, SignatureSpec, SourceSpec, Strict
from hone.recipe.retrain import RetrainSpec
from hone.recipe.robustness import RobustnessSpec
from hone.recipe.variants import AUTO, VariantSpec
from hone.steps.base import StepError
from hone.steps.pipeline import check_steps
from hone.steps.record import PostStep, PreStep, Steps

ROWS_SUFFIXES = (".npz", ".csv", ".parquet")
"""Of files that hold rows."""

Share = Annotated[float, Field(ge=0, le=1)]


class DataSpec(Strict):
    """Arrays by input name: `module:function`, an .npz, .csv or .parquet file. Functions are called once a run."""

    source: str = Field(alias="from", description="`module:function`, or an .npz, .csv or .parquet file.")
    labels: str | None = Field(None, description="The key or column that holds the labels; default: 'label'.")
    columns: dict[str, list[str]] = Field(
        default_factory=dict,
        description="For .csv and .parquet: the columns that make up each input of shape [batch, n].",
    )
    share: tuple[Share, Share] | None = Field(
        None,
        description="Only these rows, of all in a random order that is always the same: [0, 0.2] is a fifth of them, "
        "and [0.2, 1] all the others. So one file can give both sets, and no row is in both.",
    )
    limit: int | None = Field(None, gt=0, description="Use only this many rows.")
    slices: tuple[str, ...] = Field(
        (),
        description="Of evaluation: columns whose values tell rows apart, such as a region; each is judged, too.",
    )
    keep_rows: bool = Field(
        True,
        description="Of evaluation: keep up to 2,000 rows, 8 MB at most, in this host's store for load tests and, with "
        "their labels, for promotions; and up to 256 in the artifacts, for hosts to compare their answers with the "
        "proof's. False for rows that must not be copied: made-up ones stand for them in artifacts.",
    )

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"from": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _has_a_known_form(self) -> DataSpec:
        if not self.is_file and ":" not in self.source:
            raise ValueError(
                f"'{self.source}' is no .npz, .csv or .parquet file and no module:function; read other files in a "
                "function of your own"
            )
        if self.share is not None and not self.share[0] < self.share[1]:
            raise ValueError("share: give two numbers, the smaller first, such as [0, 0.2]")
        return self

    @property
    def is_file(self) -> bool:
        return self.source.endswith(ROWS_SUFFIXES)


Drop = Annotated[float, Field(ge=0)] | Annotated[str, Field(pattern=r"^\d+(\.\d+)?\s*%$")]


class MetricSpec(Strict):
    """A metric that a variant is judged by."""

    metric: str = Field(
        "likeness",
        description="The name of one of the metrics below: some compare with labels, others with the source model's "
        "outputs. Or `module:function` taking (outputs, labels) and returning one number: outputs is a dict of numpy "
        "arrays by output name with the answers to all evaluation rows, rows on axis 0; labels is the array that "
        "evaluation gave, None without one.",
    )
    output: str | None = Field(None, description="The output that the metric reads; default: the first.")
    k: int = Field(5, gt=0, description="For metrics of the `k` largest classes.")
    higher_is_better: bool = Field(True, description="For `module:function`: False when the number is an error.")
    drop: Drop | None = Field(
        None,
        description="Largest loss against the source, as `budget.quality_drop`, which is the default; of a list of "
        "metrics each has its own.",
    )


class QualitySpec(MetricSpec):
    """How good a variant is on the evaluation set: one metric, or a list of them, of which the first ranks."""

    also: tuple[MetricSpec, ...] = Field((), description="More metrics; each has a `drop` of its own that must hold.")
    skip_checks: str = Field(
        "",
        description="Before any pass the metric must tell the source's answers from shuffled ones, and the source must "
        "beat a constant answer. Where that can't hold, say why here: the checks are left out, and the report "
        "says so.",
    )


class Conditions(Strict):
    """The batch size and thread count at which a latency limit holds and variants are ranked."""

    batch: int = Field(1, gt=0)
    threads: int | Literal["all"] = "all"


class Budget(Strict):
    """Limits that a variant must meet; one left out is no limit."""

    quality_drop: Drop = Field(
        0.01, description="Largest loss against the source: in the metric's unit (0.01), or relative ('1%')."
    )
    confidence: float = Field(
        0.95,
        ge=0.5,
        lt=1,
        description="How sure it must be that no variant that is called proven loses more than is allowed.",
    )
    quality_floor: float | None = Field(
        None, description="Least quality (for an error the largest), whatever the source's is; proven like a loss."
    )
    worst_class_drop: float | None = Field(
        None, gt=0, description="Largest loss of the share that is right among the rows of any one class."
    )
    worst_slice_drop: float | None = Field(
        None, gt=0, description="Largest loss on the rows of any one value of `evaluation.slices`."
    )
    robustness_drop: Drop | None = Field(
        None,
        description="Largest loss against the source on rows that are disturbed alike for both (`robustness`), as "
        "`quality_drop`.",
    )
    p50_ms: float | None = Field(None, gt=0, description="Largest median latency, ms.")
    p95_ms: float | None = Field(None, gt=0, description="Largest 95th percentile latency, ms.")
    p99_ms: float | None = Field(None, gt=0, description="Largest 99th percentile latency, ms.")
    rows_per_s: float | None = Field(None, gt=0, description="Least rows/s: batch size over median latency.")
    load_ms: float | None = Field(None, gt=0, description="Longest time to load, ms.")
    peak_rss_mb: float | None = Field(None, gt=0, description="Largest peak memory of a process that runs it, MiB.")
    size_mb: float | None = Field(None, gt=0, description="Largest size on disk, MB.")
    energy_j: float | None = Field(
        None, gt=0, description="Largest energy of 1,000 rows, J; for hosts that tell it (RAPL, NVML)."
    )
    at: Conditions = Conditions()

    def allowed_drop(self, quality: float) -> float:
        """Return the largest drop from a quality, in its unit."""
        return allowed_drop(self.quality_drop, quality)


def allowed_drop(drop: float | str, quality: float) -> float:
    """Return a drop in the unit of a quality that it may be a share of ('1%')."""
    return float(drop.rstrip("% ")) / 100 * abs(quality) if isinstance(drop, str) else drop


class MeasureSpec(Strict):
    """How latency is measured."""

    batches: tuple[Annotated[int, Field(gt=0)], ...] = (1, 8, 32)
    threads: tuple[Annotated[int, Field(gt=0)] | Literal["all"], ...] = (1, "all")
    rounds: int = Field(20, gt=0, description="Interleaved rounds; every variant runs once in each.")
    round_ms: int = Field(25, gt=0, description="How long a variant runs per round, batch size and thread count.")


class PromotionSpec(Strict):
    """What must hold beside the champion before a version takes its place: `hone registry promote`."""

    approval: bool = Field(False, description="A person must approve, with a reason.")
    latency: float | None = Field(
        1.1, gt=0, description="Largest time, as a multiple of the champion's on the same host; null: no limit."
    )
    size: float | None = Field(
        1.25, gt=0, description="Largest size on disk, as a multiple of the champion's; null: no limit."
    )


class Recipe(Strict):
    """One model: where it is, what to make of it, and what that must meet."""

    name: str = Field(description="The model's name in the store: lower case, digits, '.', '_', '-'.")
    source: SourceSpec = Field(description="The trained model.")
    signature: SignatureSpec | None = Field(None, description="Its inputs and outputs; required for torch.")
    preprocess: tuple[PreStep, ...] = Field(
        (), description="Steps from what callers have (text, pictures, records) to the model's inputs; see below."
    )
    postprocess: tuple[PostStep, ...] = Field(
        (), description="Steps from the model's outputs to what callers want, such as names of classes; see below."
    )
    calibration: DataSpec | None = Field(None, description="Rows that quantization observes; never the evaluation set.")
    evaluation: DataSpec = Field(description="Rows that every variant is judged on; with labels where there are any.")
    train: Reference | None = Field(
        None, description="Fine-tune hook, `module:function` taking (model, epochs) and returning the model."
    )
    quality: QualitySpec = QualitySpec()
    budget: Budget = Budget()
    robustness: RobustnessSpec | None = Field(
        None, description="How rows are disturbed; without it, and without `budget.robustness_drop`, none is."
    )
    objective: Literal["latency", "size", "quality"] = Field(
        "latency", description="What decides among variants that meet the budget."
    )
    variants: tuple[VariantSpec, ...] = Field(
        (VariantSpec(preset=AUTO),),
        min_length=1,
        description="What to make: presets, or chains of passes. `auto`, alone or among others, stands for the presets "
        "that fit the model's graph, this host and the budget; `hone optimize --dry-run` shows which, and why.",
    )
    keep: Literal["eligible", "winner", "all"] = Field(
        "eligible", description="Which servable variants go into the model store."
    )
    measure: MeasureSpec = MeasureSpec()
    promotion: PromotionSpec = PromotionSpec()
    retrain: RetrainSpec | None = Field(None, description="How and when a new model is trained.")

    @model_validator(mode="before")
    @classmethod
    def _list_of_metrics(cls, value: Any) -> Any:
        """A list is its first metric and the others; the drop of the first is the budget's."""
        quality = value.get("quality") if isinstance(value, dict) else None
        if isinstance(quality, list) and quality:
            first, *also = [{"metric": item} if isinstance(item, str) else item for item in quality]
            quality = {**first, "also": also} if isinstance(first, dict) else quality
            value = {**value, "quality": quality}
        if isinstance(quality, dict) and quality.get("drop") is not None:
            budget = value.get("budget") or {}
            budget = {"quality_drop": quality["drop"], **budget} if isinstance(budget, dict) else budget
            if isinstance(budget, dict) and budget["quality_drop"] != quality["drop"]:
                raise ValueError("quality.drop and budget.quality_drop differ; give one of them")
            value = {**value, "budget": budget}
        return value

    @field_validator("variants", mode="before")
    @classmethod
    def _auto_alone(cls, value: Any) -> Any:
        return [AUTO] if value == AUTO else value

    @field_validator("name")
    @classmethod
    def _valid_name(cls, value: str) -> str:
        if not is_name(value):
            raise ValueError(f"'{value}' must be 1-40 of a-z, 0-9, '.', '_', '-', starting and ending with a-z or 0-9")
        return value

    @property
    def is_auto(self) -> bool:
        """Some variants follow from the model, the host and the budget."""
        return any(spec.is_auto for spec in self.variants)

    @property
    def rows_may_be_copied(self) -> bool:
        """No data set of the recipe says `keep_rows: false`."""
        return all(spec.keep_rows for spec in (self.evaluation, self.calibration) if spec)

    @property
    def steps(self) -> Steps:
        """The steps before and behind the model."""
        return Steps(preprocess=self.preprocess, postprocess=self.postprocess)

    @model_validator(mode="after")
    def _steps_fit(self) -> Recipe:
        if self.signature is not None and self.preprocess:
            try:
                check_steps(self.steps, self.signature.to_signature().inputs, None)
            except StepError as error:
                raise ValueError(str(error)) from None
        return self

    @model_validator(mode="after")
    def _retraining_trains(self) -> Recipe:
        spec = self.retrain
        if spec and (spec.command or spec.call) and not self.source.trainable:
            field = "source.python.files" if self.source.python else "source.file"
            raise ValueError(f"retrain.command and retrain.call write what {field} names, which is missing")
        if spec and not (spec.command or spec.call or self.source.loader):
            raise ValueError("retrain needs 'command' or 'call', or a source.loader that trains")
        return self

    @model_validator(mode="after")
    def _conditions_are_measured(self) -> Recipe:
        if self.budget.at.batch not in self.measure.batches:
            raise ValueError(f"budget.at.batch {self.budget.at.batch} is not in measure.batches {self.measure.batches}")
        if self.budget.at.threads not in self.measure.threads:
            raise ValueError(
                f"budget.at.threads {self.budget.at.threads} is not in measure.threads {self.measure.threads}"
            )
        return self
