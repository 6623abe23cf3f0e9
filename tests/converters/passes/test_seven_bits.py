"""Weights of seven bits where the host's int8 products are cut off."""

from __future__ import annotations

import pytest

from hone.converters.registry import registered
from hone.runtimes.onnx.saturation import NEEDS

OLD = {"machine": "x86_64", "cpu_features": ["avx2"]}
NEW = {"machine": "x86_64", "cpu_features": ["avx2", "avx512_vnni"]}
ARM = {"machine": "aarch64", "cpu_features": ["asimddp"]}


@pytest.mark.parametrize("name", ["quantize_dynamic", "quantize_static", "quantize_nncf"])
@pytest.mark.parametrize(("host", "seven"), [(OLD, True), (NEW, False), (ARM, False)])
def test_the_host_decides_unless_the_recipe_does(
    name: str, host: dict[str, object], seven: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hone.runtimes.onnx.saturation.host", lambda: host)
    options = registered()[name].options
    by_host = options()
    assert (by_host.seven_bits, by_host.requires()) == (seven, {} if seven else NEEDS)
    for given in (True, False):
        told = options(reduce_range=given)
        assert (told.seven_bits, told.requires(), told.decided_here()) == (given, {} if given else NEEDS, {})


@pytest.mark.parametrize(
    ("name", "types"),
    [
        ("quantize_dynamic", {"weight_type": "quint8"}),
        ("quantize_static", {"weight_type": "quint8"}),
        ("quantize_static", {"activation_type": "qint8"}),
    ],
)
def test_products_that_fit_keep_their_eighth_bit(
    name: str, types: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hone.runtimes.onnx.saturation.host", lambda: OLD)
    options = registered()[name].options(**types)
    assert (options.seven_bits, options.requires(), options.decided_here()) == (False, {}, {})


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("quantize_dynamic", {}),
        ("quantize_nncf", {}),
        ("quantize_mixed", {"by": "quantize_static"}),
        ("smooth", {}),
    ],
)
def test_what_the_host_decides_is_in_the_key_of_the_cache(
    name: str, given: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder of results may be shared by hosts of several kinds."""
    options = registered()[name].options(**given)
    monkeypatch.setattr("hone.runtimes.onnx.saturation.host", lambda: OLD)
    assert options.decided_here() == {"reduce_range": True}
    monkeypatch.setattr("hone.runtimes.onnx.saturation.host", lambda: NEW)
    assert options.decided_here() == {}


def test_a_mistake_in_the_inner_options_is_left_to_the_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hone.runtimes.onnx.saturation.host", lambda: OLD)
    assert registered()["quantize_mixed"].options(options={"no_such": 1}).decided_here() == {}
