"""Other servers and converters: what they say of themselves, their environments, requests and answers."""

from __future__ import annotations

import ast
import dataclasses
import signal
import sys
import tomllib
from pathlib import Path
from typing import get_args

import numpy as np
import orjson
import pytest

from hone.benchmarks.peers.description import SCRIPTS, Payload, Peer, Server, converters, detectors, read, servers
from hone.benchmarks.peers.environment import environment, start
from hone.benchmarks.peers.payloads import FORMATS, Inputs, call
from hone.errors import HoneError

NAMES = ["bare-asgi", "bentoml", "fastapi", "litserve", "mlserver", "pytriton", "rayserve"]
RAW = [("fastapi", "/binary"), ("rayserve", "/"), ("bare-asgi", "/")]
PROBE = """
import json, os, sys
variables = {name: value for name, value in os.environ.items() if name.startswith("PEER_")}
print(json.dumps(variables), os.getpgid(0) == os.getpid(), flush=True)
print("to the error stream", file=sys.stderr)
"""


def image(rows: int) -> Inputs:
    return {"image": np.arange(rows * 64, dtype=np.float32).reshape(rows, 1, 8, 8) / 7}


def text(rows: int, tokens: int = 5) -> Inputs:
    ids = np.arange(rows * tokens, dtype=np.int64).reshape(rows, tokens) - 3
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def made(server: str, inputs: Inputs, kind: str) -> tuple[str, dict[str, str], bytes]:
    found = call(server, "model", inputs, kind)
    assert found is not None
    return found[0].path, found[0].headers, found[0].body


def answered(server: str, kind: str, body: bytes, headers: dict[str, str] | None = None) -> np.ndarray:
    found = call(server, "model", image(1), kind)
    assert found is not None
    return found[1](body, headers or {})


DESCRIBED = """# /// script
# dependencies = ["probe==1.0"]
#
# [tool.hone.server]
# ready_path = "/ready"
# settings = "none; example.com"
# payloads.json = {format = "tensors-json", path = "/json"}
# ///

import a_package_that_is_only_there
"""


def described(tmp_path: Path, text: str = DESCRIBED) -> Peer[Server]:
    script = tmp_path / "my_probe_peer.py"
    script.write_text(text)
    return read(script)


def probe(tmp_path: Path, requirements: tuple[str, ...] = ()) -> Peer[Server]:
    """Return a peer whose script prints what it was started with."""
    peer = described(tmp_path, DESCRIBED.partition("import")[0] + PROBE)
    return dataclasses.replace(peer, name="probe", requirements=requirements)


class TestDescription:
    def test_is_read_from_a_script_that_can_not_run_here(self, tmp_path: Path) -> None:
        peer = described(tmp_path)
        assert (peer.name, peer.requirements) == ("my-probe", ("probe==1.0",))
        assert peer.about == Server(
            settings="none; example.com",
            ready_path="/ready",
            payloads={"json": Payload(format="tensors-json", path="/json")},
        )

    @pytest.mark.parametrize(
        ("change", "problem"),
        [
            (("ready_path", "redy_path"), "tool.hone.server.redy_path: unknown field; did you mean 'ready_path'?"),
            (('# ready_path = "/ready"\n', ""), "tool.hone.server.ready_path: Field required"),
            (("tensors-json", "yaml"), "tool.hone.server.payloads.json.format: Input should be 'bytes', "),
            (("payloads.json", "payloads.text"), "tool.hone.server.payloads.text.[key]: Input should be 'json' or "),
            (("hone.server", "hone.sever"), "one of the tables tool.hone.server, tool.hone.converter, "),
            (('["probe==1.0"]', '"probe"'), "needs dependencies, a list of packages with their versions"),
            (('["probe==1.0"]', "["), "its description is not TOML: "),
            (("# /// script", "#"), "needs one description, '# /// script' to '# ///'; it has 0"),
        ],
    )
    def test_what_is_wrong_with_it_is_one_line(self, tmp_path: Path, change: tuple[str, str], problem: str) -> None:
        with pytest.raises(HoneError) as caught:
            described(tmp_path, DESCRIBED.replace(*change))
        assert str(caught.value).startswith(f"{tmp_path / 'my_probe_peer.py'}: ") and problem in str(caught.value)
        assert "\n" not in str(caught.value)


class TestScripts:
    def test_each_is_a_server_a_converter_or_a_detector_with_exact_versions(self) -> None:
        assert [peer.name for peer in servers()] == NAMES
        assert [peer.name for peer in converters()] == ["inc", "nncf", "olive"]
        assert [peer.name for peer in detectors()] == ["evidently", "nannyml"]
        for peer in (*servers(), *converters(), *detectors()):
            assert all(entry.count("==") == 1 for entry in peer.requirements if entry != "numpy")

    def test_all_run_the_onnx_runtime_that_hone_serves_with(self) -> None:
        pins = {pin for peer in (*servers(), *converters()) for pin in peer.requirements if "onnxruntime" in pin}
        project = tomllib.loads((SCRIPTS.resolve().parents[2] / "pyproject.toml").read_text())["project"]
        assert pins == {pin for pin in project["dependencies"] if pin.startswith("onnxruntime")}

    def test_every_format_has_its_writer_and_reader(self) -> None:
        assert set(get_args(Payload.model_fields["format"].annotation)) == FORMATS.keys()

    @pytest.mark.parametrize("script", sorted(SCRIPTS.glob("*.py")), ids=lambda path: path.stem)
    def test_imports_nothing_of_hone(self, script: Path) -> None:
        tree = ast.parse(script.read_text())
        imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert imported
        assert not {name.split(".")[0] for name in imported} & {"hone", "services", "converters", "benchmarks"}


class TestEnvironment:
    def test_failed_install_is_one_line_and_leaves_no_stamp(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("UV_OFFLINE", "1")
        peer = probe(tmp_path, (f"{tmp_path / 'missing-1.0-py3-none-any.whl'}",))
        with pytest.raises(HoneError, match="probe can't be installed: ") as caught:
            environment(peer, tmp_path / "envs")
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "envs" / "probe" / "requirements.stamp").exists()

    def test_made_again_only_when_requirements_change(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("UV_OFFLINE", "1")
        peer = probe(tmp_path, (str(wheel(tmp_path, "first")),))
        python = environment(peer, tmp_path / "envs")
        mark = python.parent / "mark"
        mark.touch()
        assert environment(peer, tmp_path / "envs") == python and mark.exists()
        environment(probe(tmp_path, (str(wheel(tmp_path, "second")),)), tmp_path / "envs")
        assert not mark.exists()


def wheel(folder: Path, name: str) -> Path:
    """Write a wheel of one empty module: what an installer needs when nothing may be downloaded."""
    import zipfile

    path = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", "")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


def test_started_in_its_own_group_with_the_contract_and_a_log(tmp_path: Path) -> None:
    process = start(probe(tmp_path), Path(sys.executable), tmp_path / "model.onnx", 4321, 3, tmp_path)
    assert process.wait(60) == 0
    log = (tmp_path / "probe.log").read_text()
    variables, own_group = log.splitlines()[0].rsplit(" ", 1)
    found = orjson.loads(variables)
    assert found == {
        "PEER_MODEL": str(tmp_path / "model.onnx"), "PEER_PORT": "4321", "PEER_THREADS": "3",
        "PEER_FOLDER": str(tmp_path),
    }  # fmt: skip
    assert own_group == "True" and "to the error stream" in log


def test_started_peer_ends_on_sigterm(tmp_path: Path) -> None:
    peer = probe(tmp_path)
    peer.script.write_text("import signal\nsignal.pause()\n")
    process = start(peer, Path(sys.executable), tmp_path / "model.onnx", 4321, 1, tmp_path)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == -signal.SIGTERM


class TestRequests:
    @pytest.mark.parametrize(("server", "path"), RAW)
    @pytest.mark.parametrize("inputs", [image(64), text(3)], ids=["image", "text"])
    def test_raw_body_is_every_input_little_endian_in_order(self, server: str, path: str, inputs: Inputs) -> None:
        where, headers, body = made(server, inputs, "binary-64")
        rows = len(next(iter(inputs.values())))
        assert (where, headers["x-rows"]) == (path, str(rows))
        for array in inputs.values():
            part, body = body[: array.nbytes], body[array.nbytes :]
            np.testing.assert_array_equal(
                np.frombuffer(part, array.dtype.newbyteorder("<")).reshape(array.shape), array
            )
        assert body == b""

    @pytest.mark.parametrize("inputs", [image(2), text(3)], ids=["image", "text"])
    def test_json_body_holds_the_same_numbers(self, inputs: Inputs) -> None:
        bodies = [orjson.loads(made(server, inputs, "json-1")[2])["inputs"] for server in ("fastapi", "litserve")]
        for found in bodies:
            for name, array in inputs.items():
                np.testing.assert_array_equal(np.array(found[name], array.dtype), array)

    def test_bentoml_takes_one_array_only(self) -> None:
        body = orjson.loads(made("bentoml", image(2), "json-1")[2])
        np.testing.assert_array_equal(np.array(body["inputs"], np.float32), image(2)["image"])
        assert call("bentoml", "model", text(1), "json-1") is None

    @pytest.mark.parametrize("server", ["mlserver", "pytriton"])
    def test_v2_json_names_type_and_shape(self, server: str) -> None:
        path, headers, body = made(server, text(2), "json-1")
        assert (path, headers["content-type"]) == ("/v2/models/model/infer", "application/json")
        tensors = {tensor["name"]: tensor for tensor in orjson.loads(body)["inputs"]}
        assert {tensor["datatype"] for tensor in tensors.values()} == {"INT64"}
        for name, array in text(2).items():
            np.testing.assert_array_equal(np.reshape(tensors[name]["data"], tensors[name]["shape"]), array)

    def test_v2_binary_header_says_where_each_tensor_lies(self) -> None:
        _, headers, body = made("pytriton", text(2), "binary-1")
        size = int(headers["inference-header-content-length"])
        header, rest = orjson.loads(body[:size]), body[size:]
        assert header["parameters"] == {"binary_data_output": True}
        for tensor, array in zip(header["inputs"], text(2).values(), strict=True):
            length = tensor["parameters"]["binary_data_size"]
            np.testing.assert_array_equal(np.frombuffer(rest[:length], np.int64).reshape(tensor["shape"]), array)
            rest = rest[length:]
        assert rest == b""

    def test_bare_asgi_has_no_json(self) -> None:
        assert call("bare-asgi", "model", image(1), "json-1") is None


class TestAnswers:
    scores = np.array([[0.5, -1.25], [3.0, 1e-3]], np.float32)

    def check(self, found: np.ndarray) -> None:
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, self.scores.reshape(-1))

    @pytest.mark.parametrize("server", [name for name, _ in RAW])
    def test_raw_bytes(self, server: str) -> None:
        self.check(answered(server, "binary-1", self.scores.tobytes()))

    @pytest.mark.parametrize("server", ["fastapi", "litserve"])
    def test_outputs_member(self, server: str) -> None:
        self.check(answered(server, "json-1", orjson.dumps({"outputs": self.scores.tolist()})))

    def test_bentoml_list(self) -> None:
        self.check(answered("bentoml", "json-1", orjson.dumps(self.scores.tolist())))

    @pytest.mark.parametrize("server", ["mlserver", "pytriton"])
    def test_v2_json(self, server: str) -> None:
        output = {"name": "scores", "datatype": "FP32", "shape": [2, 2], "data": self.scores.reshape(-1).tolist()}
        self.check(answered(server, "json-1", orjson.dumps({"outputs": [output]})))

    def test_v2_binary_skips_the_header(self) -> None:
        header = b'{"outputs":[{"name":"scores"}]}'
        headers = {"inference-header-content-length": str(len(header))}
        self.check(answered("pytriton", "binary-1", header + self.scores.tobytes(), headers))
