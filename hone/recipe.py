"""Recipes: the user's YAML, typed and checked. Every mistake names file, line, field and the nearest valid name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from hone.errors import RecipeError, did_you_mean, one_line
from hone.names import is_name
from hone.signature import DTYPES, Signature, TensorSpec, known_dtype, valid_axes

Reference = Annotated[
    str,
    Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$", description="A Python object, `module:function`."),
]
PICKLE_SUFFIXES = (".pkl", ".pickle", ".joblib", ".pt", ".pth", ".bin")


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SourceSpec(_Strict):
    """Where the trained model is: a file, a function that returns it, or both (weights and the class they fit)."""

    framework: str | None = Field(
        None, description="The framework; by default told from the file's ending or the loaded object."
    )
    loader: Reference | None = Field(
        None,
        description="`module:function` beside the recipe that returns the model (`file` may hold its weights). It is "
        "called once a run, so it may train.",
    )
    file: str | None = Field(
        None, description="A .safetensors, .pt2, .keras, .onnx, .ubj, .json or .skops file, relative to the recipe."
    )
    trust_pickle: bool = Field(
        False,
        description="Allow a pickle (.pkl, .joblib, .pt, …), or a .pt2 or .skops file that holds more than tensors and "
        "standard types. Loading one runs code that it contains.",
    )

    @model_validator(mode="after")
    def _has_model(self) -> SourceSpec:
        if not self.file and not self.loader:
            raise ValueError("give 'file', 'loader' or both")
        if self.file and self.file.endswith(PICKLE_SUFFIXES) and not self.trust_pickle:
            raise ValueError(
                f"'{self.file}' is a pickle, and loading a pickle runs code that it contains; "
                "set 'trust_pickle: true' if you made it, or save the model in a safe format"
            )
        return self


class InputSpec(_Strict):
    """One input of the model."""

    dtype: str = Field("float32", description=f"One of {', '.join(DTYPES)}.")
    shape: tuple[int | str, ...] = Field(description="Sizes, and names for dynamic axes: [batch, 1, 8, 8].")
    allow_nan: bool = Field(False, description="Accept NaN and infinities in requests.")
    pad_value: float | None = Field(
        None,
        description="What a served row is filled up with along named axes other than batch, so that rows of several "
        "lengths can share a batch; the model must ignore it there (0 for an attention mask).",
    )

    @field_validator("dtype")
    @classmethod
    def _known_dtype(cls, value: str) -> str:
        return known_dtype(value)

    @field_validator("shape")
    @classmethod
    def _valid_axes(cls, value: tuple[int | str, ...]) -> tuple[int | str, ...]:
        return valid_axes(value)


class SignatureSpec(_Strict):
    """Names, dtypes and shapes. Left out, it is read from the model file where the format has one."""

    inputs: dict[str, InputSpec]
    outputs: tuple[str, ...] = Field((), description="Output names, in the model's order; shapes are measured.")

    def to_signature(self) -> Signature:
        return Signature(inputs=tuple(TensorSpec(name=name, **spec.model_dump()) for name, spec in self.inputs.items()))


class DataSpec(_Strict):
    """Arrays by input name: `module:function`, an .npz or a .parquet file. Functions are called once a run."""

    source: str = Field(alias="from", description="`module:function`, or an .npz or .parquet file.")
    labels: str | None = Field(None, description="The key or column that holds the labels; default: 'label'.")
    columns: dict[str, list[str]] = Field(
        default_factory=dict, description="For parquet: the columns that make up each input of shape [batch, n]."
    )
    limit: int | None = Field(None, gt=0, description="Use only this many rows.")

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"from": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _has_a_known_form(self) -> DataSpec:
        if not self.is_file and ":" not in self.source:
            raise ValueError(
                f"'{self.source}' is no .npz or .parquet file and no module:function; read other files in a function "
                "of your own"
            )
        return self

    @property
    def is_file(self) -> bool:
        return self.source.endswith((".npz", ".parquet"))


class QualitySpec(_Strict):
    """How good a variant is on the evaluation set."""

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
    skip_checks: str = Field(
        "",
        description="Before any pass the metric must tell the source's answers from shuffled ones, and the source must "
        "beat a constant answer. Where that can't hold, say why here: the checks are left out, and the report "
        "says so.",
    )


class Conditions(_Strict):
    """The batch size and thread count at which a latency limit holds and variants are ranked."""

    batch: int = Field(1, gt=0)
    threads: int | Literal["all"] = "all"


class Budget(_Strict):
    """Limits that a variant must meet; one left out is no limit."""

    quality_drop: Annotated[float, Field(ge=0)] | Annotated[str, Field(pattern=r"^\d+(\.\d+)?\s*%$")] = Field(
        0.01, description="Largest loss against the source: in the metric's unit (0.01), or relative ('1%')."
    )
    p95_ms: float | None = Field(None, gt=0, description="Largest 95th percentile latency, ms.")
    peak_rss_mb: float | None = Field(None, gt=0, description="Largest peak memory of a process that runs it, MiB.")
    size_mb: float | None = Field(None, gt=0, description="Largest size on disk, MB.")
    at: Conditions = Conditions()

    def allowed_drop(self, quality: float) -> float:
        """Return the largest drop from a quality, in its unit."""
        if isinstance(self.quality_drop, str):
            return float(self.quality_drop.rstrip("% ")) / 100 * abs(quality)
        return self.quality_drop


class VariantSpec(_Strict):
    """A preset by name, a preset with changed options, or an explicit chain of passes."""

    name: str = ""
    preset: str | None = None
    passes: tuple[str | dict[str, dict[str, Any] | None], ...] = ()
    options: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="With a preset: options by pass name that differ from the preset's."
    )

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"preset": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_form(self) -> VariantSpec:
        if bool(self.preset) == bool(self.passes):
            raise ValueError("give either 'preset' or 'passes'")
        if self.passes and not self.name:
            raise ValueError("a variant with 'passes' needs a 'name'")
        if self.passes and self.options:
            raise ValueError("'options' goes with 'preset'; with 'passes' write them beside the pass")
        if self.name and not is_name(self.name):
            raise ValueError(f"name '{self.name}' must be 1-40 of a-z, 0-9, '.', '_', '-'")
        return self


class MeasureSpec(_Strict):
    """How latency is measured."""

    batches: tuple[Annotated[int, Field(gt=0)], ...] = (1, 8, 32)
    threads: tuple[Annotated[int, Field(gt=0)] | Literal["all"], ...] = (1, "all")
    rounds: int = Field(20, gt=0, description="Interleaved rounds; every variant runs once in each.")
    round_ms: int = Field(25, gt=0, description="How long a variant runs per round, batch size and thread count.")


class Recipe(_Strict):
    """One model: where it is, what to make of it, and what that must meet."""

    name: str = Field(description="The model's name in the store: lower case, digits, '.', '_', '-'.")
    source: SourceSpec = Field(description="The trained model.")
    signature: SignatureSpec | None = Field(None, description="Its inputs and outputs; required for torch.")
    calibration: DataSpec | None = Field(None, description="Rows that quantization observes; never the evaluation set.")
    evaluation: DataSpec = Field(description="Rows that every variant is judged on; with labels where there are any.")
    train: Reference | None = Field(
        None, description="Fine-tune hook, `module:function` taking (model, epochs) and returning the model."
    )
    quality: QualitySpec = QualitySpec()
    budget: Budget = Budget()
    objective: Literal["latency", "size", "quality"] = Field(
        "latency", description="What decides among variants that meet the budget."
    )
    variants: tuple[VariantSpec, ...] = Field(min_length=1, description="What to make: presets, or chains of passes.")
    keep: Literal["eligible", "winner", "all"] = Field(
        "eligible", description="Which servable variants go into the model store."
    )
    measure: MeasureSpec = MeasureSpec()

    @field_validator("name")
    @classmethod
    def _valid_name(cls, value: str) -> str:
        if not is_name(value):
            raise ValueError(f"'{value}' must be 1-40 of a-z, 0-9, '.', '_', '-', starting and ending with a-z or 0-9")
        return value

    @model_validator(mode="after")
    def _conditions_are_measured(self) -> Recipe:
        if self.budget.at.batch not in self.measure.batches:
            raise ValueError(f"budget.at.batch {self.budget.at.batch} is not in measure.batches {self.measure.batches}")
        if self.budget.at.threads not in self.measure.threads:
            raise ValueError(
                f"budget.at.threads {self.budget.at.threads} is not in measure.threads {self.measure.threads}"
            )
        return self


class LoadedRecipe(BaseModel):
    """A recipe and the file it came from: references and files are looked up beside it."""

    model_config = ConfigDict(frozen=True)

    recipe: Recipe
    path: Path

    @property
    def root(self) -> Path:
        return self.path.parent

    def file(self, name: str, field: str) -> Path:
        """Return the path of a file that the recipe names; raises RecipeError when it is not there."""
        path = (self.root / name).resolve()
        if not path.exists():
            raise RecipeError(f"{self.path}: {field}: {path} does not exist")
        return path


def load_recipe(path: Path) -> LoadedRecipe:
    """Read and check a recipe.

    Raises:
        RecipeError: naming file, line and field.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such file; 'hone init MODEL' writes a recipe") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read: {one_line(error)}") from None
    try:
        content = yaml.safe_load(text)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or one_line(error)
        raise RecipeError(f"{path}{line}: not valid YAML: {problem}") from None
    if not isinstance(content, dict):
        raise RecipeError(f"{path}: a recipe is a mapping of fields, such as 'name:' and 'source:'")
    _check_duplicate_keys(path, node)
    try:
        return LoadedRecipe(recipe=Recipe.model_validate(content), path=path.resolve())
    except ValidationError as error:
        raise RecipeError("\n".join(_explain(path, node, error))) from None


def _explain(path: Path, node: yaml.Node | None, error: ValidationError) -> list[str]:
    """Turn pydantic's errors into `file:line: field: message` lines, one for each mistake."""
    mistakes: dict[tuple[int, str], list[str]] = {}
    for item in error.errors():
        location = tuple(part for part in item["loc"] if not _is_union_branch(part))
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            message = "unknown field" + did_you_mean(str(location[-1]), _siblings(location))
        elif item["type"] == "missing":
            message = "is required"
        elif item["type"] != "value_error":
            message = f"{_plainly(item, location)} (got {item['input']!r})"
        said = mistakes.setdefault((_line(node, location), _field_path(location)), [])
        said += [message] if message not in said else []
    return [
        f"{path}:{line}: {field + ': ' if field else ''}{' or '.join(messages)}"
        for (line, field), messages in sorted(mistakes.items())
    ]


def _plainly(item: ErrorDetails, location: tuple[int | str, ...]) -> str:
    """What a value should be, where pydantic would tell how it checked."""
    limits = item.get("ctx", {})
    if location[-1:] == ("quality_drop",):
        return "write a number (0.01) or a share of the source's quality ('1%')"
    if item["type"] == "string_pattern_mismatch":
        return "write module:function, such as model:load"
    if item["type"] == "too_short":
        return f"needs at least {limits['min_length']} of them"
    message = item["msg"]
    return f"{message[0].lower()}{message[1:]}"


def _is_union_branch(part: int | str) -> bool:
    """Pydantic puts the tried branch of a union into the location; people don't write it."""
    return isinstance(part, str) and (part in ("int", "str", "float") or "constrained-" in part or "[" in part)


def _field_path(location: tuple[int | str, ...]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _siblings(location: tuple[int | str, ...]) -> list[str]:
    """Return the valid field names beside a misspelled one, by walking the recipe's JSON schema."""
    schema = Recipe.model_json_schema(by_alias=True)
    definitions = schema["$defs"]
    current: dict[str, Any] = schema
    for part in location[:-1]:
        current = _resolve(current, definitions)
        if isinstance(part, int):
            current = current.get("items", {})
        else:
            current = current.get("properties", {}).get(part) or current.get("additionalProperties") or {}
        if not isinstance(current, dict):
            return []
    return list(_resolve(current, definitions).get("properties", {}))


def _resolve(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    while True:
        if "anyOf" in schema:
            schema = next((option for option in schema["anyOf"] if "$ref" in option), schema["anyOf"][0])
        if "$ref" not in schema:
            return schema
        schema = definitions[schema["$ref"].rsplit("/", 1)[1]]


def _line(node: yaml.Node | None, location: tuple[int | str, ...]) -> int:
    """Return the 1-based line of a field, or of its nearest parent that the file has."""
    line = node.start_mark.line if node else 0
    for part in location:
        child: tuple[yaml.Node, yaml.Node] | None = None
        if isinstance(node, yaml.MappingNode):
            child = next(((key, value) for key, value in node.value if key.value == str(part)), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            child = (node.value[part], node.value[part])
        if child is None:
            break
        line = child[0].start_mark.line
        node = child[1]
    return line + 1


def _check_duplicate_keys(path: Path, node: yaml.Node | None) -> None:
    """YAML keeps the last of two equal keys without a word; a recipe must not lose a field that way."""
    if isinstance(node, yaml.SequenceNode):
        for child in node.value:
            _check_duplicate_keys(path, child)
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[str] = set()
    for key, value in node.value:
        if key.value in seen:
            raise RecipeError(f"{path}:{key.start_mark.line + 1}: '{key.value}' is given twice")
        seen.add(key.value)
        _check_duplicate_keys(path, value)
