"""What cosign 3.1.1 wrote: a key, encrypted with the password `long`, and its bundle for an image without files."""

from __future__ import annotations

PRIVATE = """-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----
eyJrZGYiOnsibmFtZSI6InNjcnlwdCIsInBhcmFtcyI6eyJOIjo2NTUzNiwiciI6
OCwicCI6MX0sInNhbHQiOiJLL1NVNEsrZFNiK2xRZS9SRVpxU0RuN3M5OXEwRjhr
WE5PeXVUMHJVd1RZPSJ9LCJjaXBoZXIiOnsibmFtZSI6Im5hY2wvc2VjcmV0Ym94
Iiwibm9uY2UiOiJMSTRHOTdYd3hncVRJSEJGUjJrdmllZWJEZmppK1ozayJ9LCJj
aXBoZXJ0ZXh0IjoiS21LYkg0SXduQ0oxSisxRUxjUGh3alI2YWpJblpuUkplT0Nz
dXphMzdyUWhMc3lhVHJuZmpxcmI0Vk5RYkoyT3dpdDRFNXF0NEZuMURXZDlGNEJr
RnptdWUveUo2M2plUnVlYjJwRzEwK29NODNmRGJCSmtqUnN5UEJHa3JtSmVYaXk1
SUQrWDB3dWVIVGtMc1hJRHFjZ05qT1Mra014UGhEUEorZUQ4M25uU3cwUm5sdG5Z
ZnhuZ29Mcm5nbks2Rm9uNDNjZEZnUmM1MEE9PSJ9
-----END ENCRYPTED SIGSTORE PRIVATE KEY-----
"""
PUBLIC = """-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE0juEgP4YnydEgD03cTiLg38J/IU1
2YdQndIMqpLOILQNTpGTwyod9ni6xywP1OpX8+EoflRuDwAyUHEOM35Lpw==
-----END PUBLIC KEY-----
"""
DIGEST = "sha256:e6b1154112fffef72711788643074b2b83791d3c59d7840838704b77e0d5691a"
BUNDLE = {
    "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
    "verificationMaterial": {"publicKey": {"hint": "0Mk3Ps/FtJrkmP3Nwq/C3bR1HpWz1DNbVpZ2bsRgJJk="}},
    "dsseEnvelope": {
        "payload": (
            "eyJfdHlwZSI6Imh0dHBzOi8vaW4tdG90by5pby9TdGF0ZW1lbnQvdjEiLCJzdWJqZWN0IjpbeyJkaWdlc3QiOnsic2hhMjU2Ijoi"
            "ZTZiMTE1NDExMmZmZmVmNzI3MTE3ODg2NDMwNzRiMmI4Mzc5MWQzYzU5ZDc4NDA4Mzg3MDRiNzdlMGQ1NjkxYSJ9LCJhbm5vdGF0"
            "aW9ucyI6e319XSwicHJlZGljYXRlVHlwZSI6Imh0dHBzOi8vc2lnc3RvcmUuZGV2L2Nvc2lnbi9zaWduL3YxIiwicHJlZGljYXRl"
            "Ijp7fX0="
        ),
        "payloadType": "application/vnd.in-toto+json",
        "signatures": [
            {"sig": "MEUCIAZV1aIOOfZXI2nVExyKvMUAZ2HzT0ceDSb4kEtqXhRSAiEA4JNdnLRgcxlITMPmiey+c2DvnA/3kURxbbzkdnl4Oy8="}
        ],
    },
}
