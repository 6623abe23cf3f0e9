"""Read a recipe's file, and find what it names beside it."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from hone.errors import RecipeError, one_line
from hone.recipe.fields import Recipe
from hone.recipe.mistakes import check_keys, explain
from hone.recipe.scripted import scripted


class LoadedRecipe(BaseModel):
    """A recipe and the file it came from: references and files are looked up beside it."""

    model_config = ConfigDict(frozen=True)

    recipe: Recipe
    path: Path
    newer: Path | None = None
    """Folder with files of `source.python.files` that take the place of those beside the recipe."""

    @property
    def root(self) -> Path:
        return self.path.parent

    def with_source(self, place: Path | None) -> LoadedRecipe:
        """Return the recipe with another model; None leaves it as it is.

        Args:
            place: what stands in `source.file` then; of a model in Python a folder with newer ones of its files.

        Raises:
            RecipeError: it is no such folder.
        """
        if place is None:
            return self
        if self.recipe.source.python is None:
            source = self.recipe.source.model_copy(update={"file": str(place.resolve())})
            return self.model_copy(update={"recipe": self.recipe.model_copy(update={"source": source})})
        if self.trained_in(place) is None:
            names = ", ".join(self.recipe.source.trainable) or "which names none"
            raise RecipeError(f"{place}: is no folder with files of the recipe's source.python.files: {names}")
        return self.model_copy(update={"newer": place.resolve()})

    def trained_in(self, folder: Path) -> Path | None:
        """Return what a training wrote to a folder, as `with_source` takes it; None: no model."""
        source = self.recipe.source
        if source.python is not None:
            return folder if any((folder / name).exists() for name in source.python.files) else None
        made = folder / Path(source.file).name if source.file else None
        return made if made is not None and made.exists() else None

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
    check_keys(path, node)
    source = content.get("source")
    file = source.get("file") if isinstance(source, dict) else None
    # Before a pickle is asked for: no setting makes one of these a source.
    if isinstance(file, str) and (problem := scripted(path.parent / file)):
        raise RecipeError(f"{path}: source.file: {problem}")
    try:
        return LoadedRecipe(recipe=Recipe.model_validate(content), path=path.resolve())
    except ValidationError as error:
        raise RecipeError("\n".join(explain(path, node, error, Recipe))) from None
