"""What a recipe says of the model: where it is, and what it takes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hone.recipe.python import PythonSpec
from hone.signature import DTYPES, Dtype, Shape, Signature, TensorSpec
from hone.userload import REFERENCE

Reference = Annotated[
    str,
    Field(pattern=REFERENCE, description="A Python object, `module:function`."),
]
MLFLOW_MODEL = "models:/"
"""How the address of a model in MLflow's registry begins, there and here."""
PICKLE_SUFFIXES = (".pkl", ".pickle", ".joblib", ".pt", ".pth", ".bin")


class Strict(BaseModel):
    """Base of what is written in a recipe: a field that isn't known is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class EnsembleSpec(Strict):
    """Stored models that answer together, as one graph."""

    models: tuple[str, ...] = Field(
        min_length=2, description="Stored ONNX models with the same inputs: NAME, NAME:VARIANT, a tag or NAME@ALIAS."
    )
    combine: Literal["average", "vote", "stacked"] = Field(
        "average",
        description="The mean of their outputs; the share of models for each class; or a linear model of all their "
        "outputs, fitted on the labels of the calibration data (logistic where labels are classes).",
    )
    weights: tuple[float, ...] = Field((), description="Of each model, for average and vote. Default: all the same.")
    output: str = Field("", description="The output that is combined, where models have several. Default: their first.")

    @model_validator(mode="after")
    def _weights_fit(self) -> EnsembleSpec:
        if self.weights and self.combine == "stacked":
            raise ValueError("weights: those of a stacked ensemble are fitted")
        if self.weights and len(self.weights) != len(self.models):
            raise ValueError(f"weights: {len(self.weights)} for {len(self.models)} models")
        if self.weights and (min(self.weights) < 0 or not sum(self.weights)):
            raise ValueError("weights: none may be negative, and not all 0")
        return self


class SourceSpec(Strict):
    """Where the trained model is: a file, a function that returns it, both (weights and the class they fit), stored
    models that answer together, or Python code that is the model."""

    framework: str | None = Field(
        None, description="The framework; by default told from the file's ending or the loaded object."
    )
    loader: Reference | None = Field(
        None,
        description="`module:function` beside the recipe that returns the model (`file` may hold its weights). It is "
        "called once a run, so it may train.",
    )
    file: str | None = Field(
        None,
        description="A .safetensors, .pt2, .keras, .h5, .onnx, .ubj, .json, .txt or .skops file, or a folder: "
        "of Hugging Face, or a SavedModel; relative to the recipe. Or `models:/NAME@ALIAS`, `models:/NAME/NUMBER`: a "
        "model of the MLflow that MLFLOW_TRACKING_URI names.",
    )
    ensemble: EnsembleSpec | None = Field(
        None, description="Stored models that answer together, in the place of `file` and `loader`."
    )
    python: PythonSpec | None = Field(
        None, description="Code that is the model, in the place of `file` and `loader`; see docs/python.md."
    )
    trust_pickle: bool = Field(
        False,
        description="Allow a pickle (.pkl, .joblib, .pt, …), or a .pt2 or .skops file that holds more than tensors and "
        "standard types. Loading one runs code that it contains.",
    )

    @property
    def trainable(self) -> tuple[str, ...]:
        """Files and folders, as the recipe names them, that a training writes anew."""
        if self.python is not None:
            return self.python.files
        return (self.file,) if self.file else ()

    @model_validator(mode="after")
    def _has_model(self) -> SourceSpec:
        if self.python:
            self._is_alone()
        elif self.framework == "python":
            raise ValueError("framework: code is named in 'python', such as {python: 'model:predict'}")
        elif not self.file and not self.loader and not self.ensemble:
            raise ValueError("give 'file', 'loader' or both, or 'ensemble', or 'python'")
        if self.ensemble and (self.file or self.loader):
            raise ValueError("give either 'ensemble', or 'file' and 'loader'")
        if self.file and self.file.endswith(PICKLE_SUFFIXES) and not self.trust_pickle:
            raise ValueError(
                f"'{self.file}' is a pickle, and loading a pickle runs code that it contains; "
                "set 'trust_pickle: true' if you made it, or save the model in a safe format"
            )
        return self

    def _is_alone(self) -> None:
        if self.file or self.loader or self.ensemble:
            raise ValueError("give either 'python', or another model; what the code reads goes into 'python.files'")
        if self.framework not in (None, "python"):
            raise ValueError(f"framework: '{self.framework}' is none of code's; leave it out")


class InputSpec(Strict):
    """One input of the model."""

    dtype: Dtype = Field("float32", description=f"One of {', '.join(DTYPES)}.")
    shape: Shape = Field(description="Sizes, and names for dynamic axes: [batch, 1, 8, 8].")
    allow_nan: bool = Field(False, description="Accept NaN and infinities in requests.")
    pad_value: float | None = Field(
        None,
        description="What a served row is filled up with along named axes other than batch, so that rows of several "
        "lengths can share a batch; the model must ignore it there (0 for an attention mask).",
    )


class SignatureSpec(Strict):
    """Names, dtypes and shapes. Left out, it is read from the model file where the format has one."""

    inputs: dict[str, InputSpec]
    outputs: tuple[str, ...] = Field((), description="Output names, in the model's order; shapes are measured.")

    def to_signature(self) -> Signature:
        return Signature(inputs=tuple(TensorSpec(name=name, **spec.model_dump()) for name, spec in self.inputs.items()))
