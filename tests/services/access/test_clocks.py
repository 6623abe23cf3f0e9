"""Clocks that jump, with libfaketime: the wall clock goes a day forwards and two days back while a server serves."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import jwt
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from hone.audit import verify
from hone.services.access.api_keys import add_key, remove_key
from tests.servers import DIGITS, put, server

LIBRARY = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))), None)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(LIBRARY is None, reason="libfaketime is not installed")]

DAY_S = 86_400
BODY = np.ones((1, 4), np.float32).tobytes()


class Signer:
    """Signs tokens; the server reads its key set from a file."""

    def __init__(self, folder: Path) -> None:
        self._private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        algorithm = jwt.algorithms.RSAAlgorithm(jwt.algorithms.RSAAlgorithm.SHA256)
        key = {**json.loads(algorithm.to_jwk(self._private.public_key())), "kid": "one", "alg": "RS256"}
        self.file = folder / "jwks.json"
        self.file.write_text(json.dumps({"keys": [key]}))

    def token(self, now: float, subject: str) -> str:
        claims = {"iss": "i", "aud": "hone", "sub": subject, "scope": "predict", "iat": int(now), "exp": int(now) + 600}
        return jwt.encode(claims, self._private, algorithm="RS256", headers={"kid": "one"})


@pytest.fixture
def clock(tmp_path: Path) -> Iterator[Path]:
    file = tmp_path / "clock"
    file.write_text("+0\n")
    yield file
    file.unlink()


def test_keys_tokens_limits_cache_and_deadlines_go_on_when_the_clock_jumps(tmp_path: Path, clock: Path) -> None:
    shop, keys, signer = tmp_path / "shop", tmp_path / "keys.yaml", Signer(tmp_path)
    put(shop, tmp_path / "a", "digits", "onnx-fp32-1", run="1")
    admin = add_key(keys, "operator", ("predict", "admin"))
    slow = add_key(keys, "slow", ("predict",), 0.2)
    environment = {
        "LD_PRELOAD": str(LIBRARY), "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1",
        # As when somebody sets a system's clock: it is the wall clock that jumps.
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "HONE_API_KEYS": str(keys), "HONE_JWT_JWKS": str(signer.file), "HONE_JWT_ISSUER": "i",
        "HONE_JWT_AUDIENCE": "hone", "HONE_AUDIT_LOG": str(tmp_path / "audit.jsonl"), "HONE_CACHE_MB": "1",
    }  # fmt: skip
    with server(DIGITS, shop, **environment) as running:
        client = running.client

        def ask(**headers: str) -> int:
            kind = {"content-type": "application/octet-stream"}
            return client.post("/predict", content=BODY, headers={**kind, **headers}).status_code

        old = signer.token(time.time(), "early")
        assert ask(authorization=f"Bearer {old}") == 200
        for number, jump in enumerate((DAY_S, -2 * DAY_S, 0)):
            assert [ask(**{"x-api-key": slow}) for _ in range(2)] == [200, 429], number
            clock.write_text(f"{jump:+}\n")
            time.sleep(1.2)
            # A limit that has just been used up stays so, whichever way the clock went.
            assert ask(**{"x-api-key": slow}) == 429
            assert ask(**{"x-api-key": admin, "x-timeout-ms": "5000"}) == 200
            assert ask(authorization=f"Bearer {signer.token(time.time() + jump, f'caller-{number}')}") == 200
            stale = signer.token(time.time() + jump - DAY_S, f"stale-{number}")
            assert ask(authorization=f"Bearer {stale}") == 401
            new = add_key(keys, f"new-{number}", ("predict",))
            time.sleep(1.2)
            assert ask(**{"x-api-key": new}) == 200
            remove_key(keys, f"new-{number}")
            time.sleep(1.2)
            assert ask(**{"x-api-key": new}) == 401
            assert client.post("/v2/repository/models/digits/load", headers={"x-api-key": admin}).status_code == 200
            time.sleep(5.5)  # one request of the slow caller's comes back
        metrics = client.get("/metrics").text
        assert "hone_cache_total{" in metrics and 'result="memory_hit"' in metrics
        assert "Traceback" not in running.log.read_text()
    assert verify(tmp_path / "audit.jsonl").records == 6
