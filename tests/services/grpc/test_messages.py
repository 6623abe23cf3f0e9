"""The messages of the V2 protocol, generated from its published definition."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.house import ROOT

FOLDER = ROOT / "services/grpc"


def test_generated_messages_belong_to_their_source(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", str(FOLDER), "--python_out", str(tmp_path)]
    subprocess.run([*command, str(FOLDER / "v2.proto")], check=True)
    assert (tmp_path / "v2_pb2.py").read_text() == (FOLDER / "v2_pb2.py").read_text()
