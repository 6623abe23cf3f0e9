from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import http.server
import json
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from hone.errors import HoneError
from hone.services.access.api_keys import KeyFile, add_key, read_keys, remove_key
from hone.services.access.callers import ForbiddenError, RateLimitedError, UnauthorizedError
from hone.services.access.gate import Gate
from hone.services.access.rates import RateLimiter, RateTable
from hone.services.access.tokens import JwtVerifier, check_jwks


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def admit(gate: Gate, key: str, scope: str = "predict") -> str:
    return asyncio.run(gate.admit(b"", key.encode(), scope)).id  # type: ignore[arg-type]


def test_key_is_kept_as_a_hash_and_opens_its_scopes_only(tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    key = add_key(file, "ci", ("predict",))
    assert key not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    gate = Gate(KeyFile(file), None)
    assert admit(gate, key) == "ci"
    assert asyncio.run(gate.admit(f"Bearer {key}".encode(), b"", "predict")).id == "ci"
    with pytest.raises(ForbiddenError, match="needs the scope 'operate', the key has predict"):
        admit(gate, key, "operate")
    for wrong in ("", "x", key[:-1]):
        with pytest.raises(UnauthorizedError):
            admit(gate, wrong)


def test_keys_are_followed_while_serving(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file, clock = tmp_path / "keys.yaml", Clock()
    first = add_key(file, "first", ("predict",))
    gate = Gate(KeyFile(file, clock), None)
    second = add_key(file, "second", ("predict", "admin"))
    remove_key(file, "first")
    assert admit(gate, first) == "first"  # within a second of the last look
    clock.now += 2
    assert admit(gate, second, "operate") == "second"
    with pytest.raises(UnauthorizedError):
        admit(gate, first)
    assert not gate.stale
    file.write_text("keys: 7")
    clock.now += 2
    assert admit(gate, second) == "second"
    assert gate.stale
    assert caplog.text.count("the old API keys stay in use") == 1
    clock.now += 2
    assert admit(gate, second) == "second"
    mended = file.with_name("mended.yaml")
    third = add_key(mended, "third", ("predict",))
    mended.replace(file)
    clock.now += 2
    assert admit(gate, third) == "third"
    assert not gate.stale


def test_key_file_that_is_gone_lets_nobody_in_after_five_seconds(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, clock = tmp_path / "keys.yaml", Clock()
    key = add_key(file, "ci", ("predict",))
    content = file.read_text()
    gate = Gate(KeyFile(file, clock), None)
    file.unlink()
    clock.now += 2
    assert admit(gate, key) == "ci"  # it may be on its way back
    assert gate.stale
    file.write_text(content)
    clock.now += 2
    assert admit(gate, key) == "ci"
    assert not gate.stale
    file.unlink()
    for _ in range(4):
        clock.now += 2
        with contextlib.suppress(UnauthorizedError):
            admit(gate, key)
    with pytest.raises(UnauthorizedError):
        admit(gate, key)
    assert "no API key is valid until it is there again" in caplog.text
    file.write_text(content)
    clock.now += 2
    assert admit(gate, key) == "ci"


def test_clock_that_goes_backwards_still_follows_keys(tmp_path: Path) -> None:
    file, clock = tmp_path / "keys.yaml", Clock()
    key = add_key(file, "ci", ("predict",))
    gate = Gate(KeyFile(file, clock), None)
    remove_key(file, "ci")
    clock.now -= 50
    with pytest.raises(UnauthorizedError):
        admit(gate, key)


def test_key_file_is_private_from_its_first_instant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[int] = []
    replace = Path.replace

    def note(self: Path, target: Path) -> Path:
        modes.append(self.stat().st_mode & 0o777)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", note)
    add_key(tmp_path / "keys.yaml", "ci", ("predict",))
    assert modes == [0o600]


def _add(path: Path, number: int) -> None:
    add_key(path, f"caller-{number}", ("predict",))


def test_keys_made_at_the_same_time_are_all_there(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: _add(path, number), range(16)))
    assert len(read_keys(path)) == 16


@pytest.mark.parametrize(
    ("scopes", "may", "may_not"),
    [
        (("predict",), ["predict digits", "read digits", "read"], ["operate digits", "list"]),
        (("operate",), ["operate digits", "read digits", "list"], ["predict digits"]),
        (("admin",), ["operate digits", "read digits", "list"], ["predict digits"]),
        (("read",), ["read digits", "read", "list"], ["predict digits", "operate digits"]),
        (("read:digits",), ["read digits"], ["read other", "read", "list", "predict digits", "operate digits"]),
        (("predict:digits",), ["predict digits", "read digits"], ["predict other", "read other", "read", "list"]),
        (
            ("operate:digits",),
            ["operate digits", "read digits"],
            ["operate other", "predict digits", "list", "operate"],
        ),
        (("admin:digits",), ["operate digits", "read digits"], ["operate other", "predict digits", "list", "operate"]),
        (("predict:digits", "read"), ["predict digits", "read other", "list"], ["predict other"]),
    ],
)
def test_scopes_open_what_they_say_and_nothing_else(
    tmp_path: Path, scopes: tuple[str, ...], may: list[str], may_not: list[str]
) -> None:
    key = add_key(tmp_path / "keys.yaml", "ci", scopes).encode()
    gate = Gate(KeyFile(tmp_path / "keys.yaml"), None)
    for wanted in may:
        action, _, model = wanted.partition(" ")
        assert gate.admit_now(b"", key, action, model) is not None, wanted  # type: ignore[arg-type]
    for wanted in may_not:
        action, _, model = wanted.partition(" ")
        with pytest.raises(ForbiddenError):
            gate.admit_now(b"", key, action, model)  # type: ignore[arg-type]
            pytest.fail(wanted)


@pytest.mark.parametrize("scope", ["write", "predict:", "admin:a/b", "read:", "predict:digits admin", ""])
def test_unknown_scope_is_named(tmp_path: Path, scope: str) -> None:
    file = tmp_path / "keys.yaml"
    file.write_text(json.dumps({"keys": [{"id": "a", "sha256": "a" * 64, "scopes": [scope]}]}))
    with pytest.raises(HoneError, match=re.escape(f"'{scope}' is no scope")):
        read_keys(file)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("keys: [{id: a}]", "keys.0.sha256"),
        ("keys: [{id: a, sha256: zz}]", "keys.0.sha256"),
        (f"keys: [{{id: a, sha256: {'a' * 64}, scope: [admin]}}]", "keys.0.scope"),
        (f"keys: [{{id: a, sha256: {'a' * 64}}}, {{id: b, sha256: {'a' * 64}}}]", "given twice"),
        (f"keys: [{{id: a, sha256: {'a' * 64}, rate_per_s: 0}}]", "rate_per_s"),
        ("keys: [", "not YAML"),
    ],
)
def test_broken_key_file_is_named(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "keys.yaml"
    file.write_text(text)
    with pytest.raises(HoneError, match=f"keys.yaml.*{words}"):
        read_keys(file)


def test_second_key_of_one_name_and_unknown_names_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    add_key(file, "ci", ("predict",))
    with pytest.raises(HoneError, match="'ci' has a key"):
        add_key(file, "ci", ("predict",))
    with pytest.raises(HoneError, match="nobody named 'cd'"):
        remove_key(file, "cd")


def test_rate_limit_is_by_caller(tmp_path: Path) -> None:
    file, clock = tmp_path / "keys.yaml", Clock()
    slow, fast = add_key(file, "slow", ("predict",), 2.0), add_key(file, "fast", ("predict",))
    gate = Gate(KeyFile(file), None, RateLimiter(RateTable(), clock=clock))
    assert [admit(gate, slow), admit(gate, slow)] == ["slow", "slow"]
    with pytest.raises(RateLimitedError) as caught:
        admit(gate, slow)
    assert caught.value.headers == (("retry-after", "1"),)
    for _ in range(50):
        admit(gate, fast)
    clock.now += 0.5
    assert admit(gate, slow) == "slow"
    with pytest.raises(RateLimitedError):
        admit(gate, slow)


class Keys:
    """A JWKS endpoint whose keys can change."""

    def __init__(self) -> None:
        self.private: dict[str, rsa.RSAPrivateKey] = {}
        self.reads = 0
        keys = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                keys.reads += 1
                self.send_response(200)
                self.end_headers()
                self.wfile.write(json.dumps(keys.jwks()).encode())

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/jwks"

    def add(self, kid: str) -> None:
        self.private[kid] = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    def jwks(self) -> dict[str, object]:
        algorithm = jwt.algorithms.RSAAlgorithm(jwt.algorithms.RSAAlgorithm.SHA256)
        return {
            "keys": [
                {**json.loads(algorithm.to_jwk(key.public_key())), "kid": kid, "alg": "RS256"}
                for kid, key in self.private.items()
            ]
        }

    def token(self, kid: str = "one", **claims: object) -> bytes:
        content = {
            "iss": "https://issuer", "aud": "hone", "sub": "ann", "exp": time.time() + 600, "scope": "predict openid",
            **claims,
        }  # fmt: skip
        content = {key: value for key, value in content.items() if value is not None}
        return jwt.encode(content, self.private[kid], algorithm="RS256", headers={"kid": kid}).encode()


@pytest.fixture
def keys() -> Iterator[Keys]:
    served = Keys()
    served.add("one")
    yield served
    served.server.shutdown()


def bearer(gate: Gate, token: bytes, scope: str = "predict") -> str:
    return asyncio.run(gate.admit(b"Bearer " + token, b"", scope)).id  # type: ignore[arg-type]


def test_token_opens_its_scopes_and_is_checked_once(keys: Keys) -> None:
    gate = Gate(None, JwtVerifier(keys.url, "https://issuer", "hone"))
    token = keys.token()
    assert gate.admit_now(b"Bearer " + token, b"", "predict") is None
    assert bearer(gate, token) == "jwt:ann"
    assert gate.admit_now(b"Bearer " + token, b"", "predict") is not None
    assert bearer(gate, keys.token(scope=None, scp=["admin"]), "operate") == "jwt:ann"
    with pytest.raises(ForbiddenError):
        bearer(gate, token, "operate")
    assert keys.reads == 1


def test_bad_tokens_are_refused(keys: Keys) -> None:
    gate = Gate(None, JwtVerifier(keys.url, "https://issuer", "hone"))
    public = keys.private["one"].public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    claims = {"iss": "https://issuer", "aud": "hone", "sub": "ann", "exp": time.time() + 600, "scope": "predict"}
    import base64
    import hashlib
    import hmac

    def encoded(content: dict[str, object]) -> bytes:
        return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=")

    confused = encoded({"alg": "HS256", "kid": "one"}) + b"." + encoded(claims)  # type: ignore[arg-type]
    confused += b"." + base64.urlsafe_b64encode(hmac.new(pem, confused, hashlib.sha256).digest()).rstrip(b"=")
    bad = {
        "expired": keys.token(exp=time.time() - 100),
        "another audience": keys.token(aud="other"),
        "another issuer": keys.token(iss="https://other"),
        "no expiry": keys.token(exp=None),
        "no subject": keys.token(sub=None),
        "unsigned": jwt.encode(claims, None, algorithm="none", headers={"kid": "one"}).encode(),
        "signed with the public key": confused,
        "cut": keys.token()[:-8],
        "garbage": b"a.b.c",
    }
    for what, token in bad.items():
        with pytest.raises(UnauthorizedError):
            bearer(gate, token)
            pytest.fail(what)


@pytest.mark.parametrize(
    "claims",
    [
        {"scope": 7}, {"scope": True}, {"scope": {"predict": 1}}, {"scope": ["predict", 7]}, {"scope": [["predict"]]},
        {"scp": 7}, {"exp": 10**400}, {"exp": 10**300}, {"exp": "soon"}, {"exp": True}, {"exp": [1]},
        {"nbf": 10**400}, {"iat": 10**400}, {"aud": {"hone": 1}}, {"aud": ["hone", 7]}, {"iss": ["https://issuer"]},
        {"sub": 7}, {"sub": ""}, {"sub": ["ann"]}, {"jti": 7},
    ],
)  # fmt: skip
def test_token_with_odd_claims_is_refused(keys: Keys, claims: dict[str, object]) -> None:
    gate = Gate(None, JwtVerifier(keys.url, "https://issuer", "hone"))
    with pytest.raises(UnauthorizedError):
        bearer(gate, signed(keys, claims))


def test_token_whose_scope_is_null_is_refused(keys: Keys) -> None:
    gate = Gate(None, JwtVerifier(keys.url, "https://issuer", "hone"))
    with pytest.raises(UnauthorizedError, match="the scope is neither a text nor a list"):
        bearer(gate, signed(keys, {"scope": None}))


def signed(keys: Keys, claims: dict[str, object]) -> bytes:
    """Return a token whose signature holds; PyJWT would refuse to make some of them."""
    content = {"iss": "https://issuer", "aud": "hone", "sub": "ann", "exp": time.time() + 600, "scope": "predict"}
    if "scp" in claims:
        del content["scope"]
    signer = jwt.api_jws.PyJWS()
    payload = json.dumps({**content, **claims}).encode()
    return signer.encode(payload, keys.private["one"], algorithm="RS256", headers={"kid": "one"}).encode()


def test_token_opens_one_model(keys: Keys) -> None:
    gate = Gate(None, JwtVerifier(keys.url, "https://issuer", "hone"))
    token = b"Bearer " + keys.token(scope="predict:digits email")
    assert asyncio.run(gate.admit(token, b"", "predict", "digits")).id == "jwt:ann"
    with pytest.raises(ForbiddenError, match="needs the scope 'predict' or 'predict:other'"):
        asyncio.run(gate.admit(token, b"", "predict", "other"))


@pytest.mark.parametrize("content", ["[]", "7", "{}", '{"keys": 7}', '{"keys": [{}]}', '{"keys": [{"kid": []}]}', "x"])
def test_broken_key_set_refuses_tokens_and_says_so(
    tmp_path: Path, keys: Keys, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    file = tmp_path / "jwks.json"
    file.write_text(content)
    with pytest.raises(HoneError, match=r"jwks.json: no key set"):
        check_jwks(str(file))
    with pytest.raises(UnauthorizedError):
        bearer(Gate(None, JwtVerifier(str(file), "https://issuer", "hone")), keys.token())
    assert "the old keys for tokens stay in use" in caplog.text


def test_rotated_keys_are_fetched_at_most_every_half_minute(keys: Keys) -> None:
    clock = Clock()
    gate = Gate(None, JwtVerifier(keys.url, "https://issuer", "hone", clock))
    bearer(gate, keys.token())
    keys.add("two")
    with pytest.raises(UnauthorizedError, match="the JWKS doesn't have"):
        bearer(gate, keys.token("two"))
    clock.now += 31
    assert bearer(gate, keys.token("two")) == "jwt:ann"
    assert keys.reads == 2


def test_dead_jwks_keeps_the_old_keys(keys: Keys) -> None:
    clock = Clock()
    gate = Gate(None, JwtVerifier(keys.url, "https://issuer", "hone", clock))
    bearer(gate, keys.token())
    keys.server.shutdown()
    keys.server.server_close()
    clock.now += 1000
    assert bearer(gate, keys.token(sub="bob")) == "jwt:bob"
