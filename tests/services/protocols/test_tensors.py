from __future__ import annotations

import json

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hone.errors import HoneError, SignatureError
from hone.services.http.failures import RequestError
from hone.services.protocols.json_tensors import parse_request
from hone.services.protocols.tensors import encode_response
from hone.services.settings import Settings
from hone.signature import Signature, TensorSpec

SIGNATURE = Signature(
    inputs=(
        TensorSpec(name="x", dtype="float32", shape=("batch", 2)),
        TensorSpec(name="count", dtype="int8", shape=("batch", 1)),
        TensorSpec(name="flag", dtype="bool", shape=("batch",)),
        TensorSpec(name="word", dtype="string", shape=("batch",)),
    )
)
GOOD = {"x": [[1, 2.5]], "count": [[3]], "flag": [True], "word": ["a"]}


def parse(**changes: object) -> dict[str, np.ndarray]:
    inputs = {key: value for key, value in {**GOOD, **changes}.items() if value != "absent"}
    return parse_request(orjson.dumps({"inputs": inputs}), SIGNATURE)


def test_good_request_has_the_signatures_dtypes_and_order() -> None:
    arrays = parse()
    assert [(name, array.dtype.str) for name, array in arrays.items()] == [
        ("x", "<f4"), ("count", "|i1"), ("flag", "|b1"), ("word", "|O"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"x": "absent"}, "input 'x' is missing; it is float32[batch, 2]"),
        ({"y": [1]}, "unknown input 'y'"),
        ({"x": [[1, 2], [3]]}, "'x' is ragged"),
        ({"x": [[1, 2, 3]]}, "axis 1 is 3, not 2"),
        ({"x": [1, 2]}, "1 axes"),
        ({"x": []}, "'x'"),
        ({"x": [["1", "2"]]}, "'x' holds strings"),
        ({"x": [[True, False]]}, "'x' holds booleans"),
        ({"x": [[1, None]]}, "null in row 0"),
        ({"x": [[1, 1e300]]}, "a number too large for float32 in row 0"),
        ({"x": [[1, {}]]}, "mixes types"),
        ({"x": 1}, "0 axes"),
        ({"x": {"a": 1}}, "mixes types"),
        ({"count": [[1.5]]}, "'count' holds floats"),
        ({"count": [[200]]}, "outside int8: -128 to 127"),
        ({"count": [[2**70]]}, "'count'"),
        ({"flag": [1]}, "'flag' holds integers"),
        ({"word": [1]}, "'word' holds integers"),
        ({"flag": [True, False]}, "differ in axis 'batch': 1 and 2"),
    ],
)
def test_wrong_tensor_is_named(changes: dict[str, object], words: str) -> None:
    content = {"inputs": {key: value for key, value in {**GOOD, **changes}.items() if value != "absent"}}
    with pytest.raises((SignatureError, RequestError)) as error:
        parse_request(json.dumps(content).encode(), SIGNATURE)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b'{"inputs": {"x": [[NaN, 1]]}}', "not JSON"),
        (b"[" * 5000, "not JSON"),
        (b"[]", "the body must be"),
        (b'{"inputs": []}', "the body must be"),
        (b'{"inputs": {}, "input": {}}', "unknown field 'input'; did you mean 'inputs'"),
    ],
)
def test_wrong_body_is_explained(body: bytes, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        parse_request(body, SIGNATURE)


def test_null_is_nan_where_the_signature_allows_it() -> None:
    signature = Signature(inputs=(TensorSpec(name="x", shape=("batch", 2), allow_nan=True),))
    array = parse_request(b'{"inputs": {"x": [[1, null]]}}', signature)["x"]
    assert np.isnan(array[0, 1])
    assert array[0, 0] == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["x", "count", "a"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@settings(max_examples=500, deadline=None)
@given(st.dictionaries(st.sampled_from(["x", "count", "flag", "word", "z"]), JSON))
def test_any_json_is_parsed_or_refused_in_one_line(inputs: dict[str, object]) -> None:
    body = json.dumps({"inputs": inputs}).encode()
    try:
        arrays = parse_request(body, SIGNATURE)
    except (RequestError, SignatureError) as error:
        assert "\n" not in str(error)
    else:
        assert [array.dtype for array in arrays.values()] == [spec.numpy_dtype for spec in SIGNATURE.inputs]


def test_answer_keeps_values_and_has_null_for_nan() -> None:
    outputs = {
        "a": np.array([[1.5, np.nan]], np.float32),
        "h": np.array([[0.5]], np.float16),
        "w": np.array(["x"], dtype=object),
        "view": np.arange(6, dtype=np.int64).reshape(2, 3)[:, ::2],
    }
    answer = json.loads(encode_response(outputs, "m:v"))
    assert answer == {
        "outputs": {"a": [[1.5, None]], "h": [[0.5]], "w": ["x"], "view": [[0, 2], [3, 5]]}, "model": "m:v",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("HONE_THREADS", "two"), ("HONE_THREADS", "-1"), ("HONE_MAX_BATCH_ROWS", "-1"), ("HONE_MAX_BODY_MB", "nan"),
        ("HONE_MAX_BODY_MB", "inf"), ("HONE_QUEUE_ROWS", "0"), ("HONE_INSECURE", "yes"), ("HONE_ACCESS_LOG", "some"),
        ("HONE_TRACE_SAMPLE", "2"), ("HONE_WORKERS", "0"), ("HONE_GRPC_PORT", "70000"),
        ("HONE_THREADS", "100000"), ("HONE_IN_FLIGHT", "1025"), ("HONE_WORKERS", "100000"),
    ],
)  # fmt: skip
def test_wrong_setting_names_the_variable(variable: str, value: str) -> None:
    with pytest.raises(HoneError, match=variable):
        Settings.from_environment({variable: value})


def test_settings_are_read_from_the_environment() -> None:
    settings = Settings.from_environment({"HONE_MODEL": "digits", "HONE_MAX_BODY_MB": "0.5", "HONE_THREADS": ""})
    assert settings == Settings(model="digits", max_body_mb=0.5)
    assert settings.max_body_bytes == 500_000


def test_a_table_row_of_v1_has_plain_values_for_columns_of_one() -> None:
    from hone.services.protocols.v1 import V1

    protocol = V1(SIGNATURE, "m", "v")
    for count in (3, [3]):
        row = {"x": [1, 2.5], "count": count, "flag": True, "word": "a"}
        request = protocol.decode({}, orjson.dumps({"instances": [row, row]}))
        assert request.inputs["count"].tolist() == [[3], [3]]
    columns = {"x": [[1, 2.5]], "count": [4], "flag": [True], "word": ["a"]}
    assert protocol.decode({}, orjson.dumps({"inputs": columns})).inputs["count"].tolist() == [[4]]
    with pytest.raises(SignatureError, match="ragged"):
        protocol.decode({}, orjson.dumps({"inputs": {**columns, "count": [[4], 5]}}))


@pytest.mark.parametrize("code", ["q", "l", "Q", "L", "i", "b"])
def test_rows_of_v1_hold_classes_beside_probabilities(code: str) -> None:
    """ONNX Runtime's int64 is C's long long, whose values are of another type than those of NumPy's int64."""
    from hone.services.protocols.v1 import V1

    protocol = V1(SIGNATURE, "m", "v")
    request = protocol.decode({}, orjson.dumps({"instances": [{"x": [1, 2.5], "count": 3, "flag": True, "word": "a"}]}))
    outputs = {"label": np.array([1, 0], code), "scores": np.array([[0.1, 0.9], [0.5, 0.5]], np.float32)}
    assert orjson.loads(protocol.encode(request, outputs)[1]) == {
        "predictions": [{"label": 1, "scores": [0.1, 0.9]}, {"label": 0, "scores": [0.5, 0.5]}]
    }
