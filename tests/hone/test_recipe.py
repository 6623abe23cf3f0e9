from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from hone.converters.recipes.reference import recipe_reference
from hone.converters.recipes.schema import recipe_schema
from hone.converters.run.plan import check_variants, make_plan
from hone.errors import RecipeError
from hone.recipe import load_recipe
from tests.models.sums import recipe, write_project


def mistake(tmp_path: Path, **changes: Any) -> str:
    with pytest.raises(RecipeError) as error:
        load_recipe(write_project(tmp_path, **changes))
    return str(error.value)


def test_valid_recipe_loads(tmp_path: Path) -> None:
    loaded = load_recipe(write_project(tmp_path))
    assert loaded.recipe.name == "sums"
    assert loaded.root == tmp_path


def test_a_list_of_metrics_is_its_first_and_the_others(tmp_path: Path) -> None:
    listed = [{"metric": "accuracy", "drop": 0.02}, "f1", {"metric": "log_loss", "drop": "5%"}]
    recipe = load_recipe(write_project(tmp_path, quality=listed, budget={"size_mb": 1})).recipe
    assert (recipe.quality.metric, recipe.budget.quality_drop) == ("accuracy", 0.02)
    assert [(one.metric, one.drop) for one in recipe.quality.also] == [("f1", None), ("log_loss", "5%")]
    assert recipe.budget.confidence == 0.95


def test_unknown_field_names_line_and_nearest(tmp_path: Path) -> None:
    message = mistake(tmp_path, budget={"quality_dropp": 0.1})
    assert "recipe.yaml:" in message
    assert "budget.quality_dropp: unknown field; did you mean 'quality_drop'?" in message


def test_every_mistake_is_listed(tmp_path: Path) -> None:
    message = mistake(tmp_path, name="Bad Name", objective="speed", evaluation=None)
    assert len(message.splitlines()) == 3
    for field in ("name", "objective", "evaluation: is required"):
        assert field in message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"source": {"file": "m.pkl"}}, "trust_pickle: true"),
        ({"source": {}}, "give 'file', 'loader' or both"),
        (
            {"source": {"loader": "no-colon"}},
            "source.loader: write module:function, such as model:load (got 'no-colon')",
        ),
        ({"signature": {"inputs": {"x": {"shape": ["batch"], "dtyp": "int8"}}}}, "did you mean 'dtype'"),
        ({"variants": []}, "variants: needs at least 1 of them (got [])"),
        (
            {"signature": {"inputs": {"x": {"shape": ["batch"], "dtype": "flaot32"}}}},
            "signature.inputs.x.dtype: unknown dtype 'flaot32'; did you mean 'float32'",
        ),
        ({"signature": {"inputs": {"x": {"shape": ["batch", 0]}}}}, "axis size 0 is not positive"),
        ({"evaluation": "data.txt"}, "evaluation: 'data.txt' is no .npz, .csv or .parquet file and no module:function"),
        ({"variants": [{"passes": ["export"]}]}, "needs a 'name'"),
        ({"variants": [{"preset": "onnx-fp32", "passes": ["export"]}]}, "either 'preset' or 'passes'"),
        ({"budget": {"at": {"batch": 7}}}, "budget.at.batch 7 is not in measure.batches"),
        ({"budget": {"confidence": 95}}, "budget.confidence: input should be less than 1 (got 95)"),
        ({"quality": {"metric": "accuracy", "drop": 0.2}}, "quality.drop and budget.quality_drop differ"),
        ({"quality": [{"metric": "f1"}, {"metirc": "f1"}]}, "unknown field; did you mean 'metric'"),
        ({"quality": {"drop": "much"}, "budget": {}}, "quality.drop: write a number (0.01) or a share"),
        (
            {"budget": {"quality_drop": "1 percent"}},
            "budget.quality_drop: write a number (0.01) or a share of the source's",
        ),
    ],
)
def test_mistake_is_explained(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    assert words in mistake(tmp_path, **changes)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: [", "not valid YAML"),
        ("- a", "a recipe is a mapping"),
        ("", "a recipe is a mapping"),
        ("name: a\nname: b\n", ":2: 'name' is given twice"),
    ],
)
def test_broken_yaml_names_the_line(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    with pytest.raises(RecipeError, match=words):
        load_recipe(file)


def test_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="hone init"):
        load_recipe(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("variants", "words"),
    [
        (["onnx-fp23"], r"variants\[0\]: unknown preset 'onnx-fp23'; did you mean 'onnx-fp32'"),
        (
            [{"name": "a", "passes": ["exprt"]}],
            r"passes\[0\]: unknown pass 'exprt'; did you mean 'export'",
        ),
        ([{"name": "a", "passes": ["quantize_static"]}], "takes onnx, but what it would get is torch"),
        (
            [{"name": "a", "passes": ["export", {"quantize_static": {"metod": "x"}}]}],
            "no option 'metod'; did you mean 'method'",
        ),
        ([{"name": "a", "passes": ["export", {"quantize_static": {"method": "x"}}]}], "option 'method'"),
        ([{"preset": "onnx-fp32", "options": {"mlx": {}}}], "has no pass 'mlx'"),
        (["onnx-fp32", "onnx-fp32"], "the name 'onnx-fp32' is taken"),
    ],
)
def test_wrong_variant_names_variant_and_pass(tmp_path: Path, variants: list[Any], words: str) -> None:
    loaded = load_recipe(write_project(tmp_path, variants=variants))
    with pytest.raises(RecipeError, match=words):
        make_plan(loaded, "torch")


def test_a_pass_without_the_rows_it_needs_is_found_when_planning(tmp_path: Path) -> None:
    loaded = load_recipe(write_project(tmp_path, calibration=None, variants=["onnx-fp32", "onnx-int8-static"]))
    for plan in (lambda: make_plan(loaded, "torch"), lambda: check_variants(loaded)):
        with pytest.raises(RecipeError, match=r"variants\[1\]: pass 'quantize_static' needs calibration rows"):
            plan()


def test_a_name_given_twice_is_found_before_the_source_is_read(tmp_path: Path) -> None:
    loaded = load_recipe(write_project(tmp_path, variants=["onnx-fp16", "onnx-fp32", "onnx-fp32"]))
    with pytest.raises(RecipeError, match=r"variants\[2\]: the name 'onnx-fp32' is taken"):
        check_variants(loaded)


def test_shared_prefix_is_planned_once(tmp_path: Path) -> None:
    loaded = load_recipe(write_project(tmp_path, variants=["onnx-fp32", "onnx-fp16", "onnx-int8-static"]))
    plan = make_plan(loaded, "torch")
    assert [node.step.name for node in plan.nodes] == ["export", "simplify", "fp16", "quantize_static"]
    assert plan.nodes[0].variants == ["onnx-fp32", "onnx-fp16", "onnx-int8-static"]


def test_different_options_branch(tmp_path: Path) -> None:
    entropy = {"preset": "onnx-int8-static", "name": "entropy", "options": {"quantize_static": {"method": "entropy"}}}
    plan = make_plan(load_recipe(write_project(tmp_path, variants=["onnx-int8-static", entropy])), "torch")
    assert [node.step.name for node in plan.nodes] == ["export", "simplify", "quantize_static", "quantize_static"]


def test_schema_accepts_what_loads_and_refuses_what_does_not() -> None:
    schema = yaml.safe_load(recipe_schema())
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    assert not list(validator.iter_errors(recipe()))
    assert list(validator.iter_errors(recipe(variants=["onnx-fp23"])))
    assert list(validator.iter_errors(recipe(budget={"quality_dropp": 1})))
    wrong = [{"name": "a", "passes": [{"quantize_static": {"method": "x"}}]}]
    assert list(validator.iter_errors(recipe(variants=wrong)))


def test_committed_schema_and_example_agree_with_the_code() -> None:
    root = Path(__file__).parents[2]
    assert (root / "docs" / "recipe.schema.json").read_text() == recipe_schema(), "run: make schema"
    assert (root / "docs" / "recipe.md").read_text() == recipe_reference(), "run: make schema"
    example = yaml.safe_load((root / "examples" / "digits" / "recipe.yaml").read_text())
    jsonschema.validate(example, yaml.safe_load(recipe_schema()))
