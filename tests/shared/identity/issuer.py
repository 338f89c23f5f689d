"""A real issuer of tokens: keys that it rotates, and an HTTP server on loopback that shows them.

Its server runs on threads of its own, so it serves what blocks too. `answer` replaces what it does
with a request, for servers that misbehave.
"""

import base64
import json
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

AUDIENCE = "https://sluice.test"
Private = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


@dataclass(frozen=True, slots=True)
class SigningKey:
    kid: str | None
    algorithm: str
    private: Private

    def jwk(self, **members: Any) -> dict[str, Any]:
        """The public half, as it stands in a set; a member that is None is left out."""
        public = _public(self.private)
        base = {**public, "kid": self.kid, "alg": self.algorithm, "use": "sig", **members}
        return {name: value for name, value in base.items() if value is not None}

    def sign(self, claims: Any, **header: Any) -> str:
        """A token with a good signature, of any claims; a field of the header that is None is left
        out.
        """
        fields = {"alg": self.algorithm, "typ": "JWT", "kid": self.kid, **header}
        given = {name: value for name, value in fields.items() if value is not None}
        signed = f"{encode(given)}.{encode(claims)}"
        algorithm = jwt.get_algorithm_by_name(self.algorithm)
        return f"{signed}.{base64url(algorithm.sign(signed.encode(), self.private))}"


def encode(value: Any) -> str:
    return base64url(json.dumps(value, separators=(",", ":")).encode())


def base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def make_key(algorithm: str, kid: str | None = "1", *, bits: int = 2048) -> SigningKey:
    """A key for RS256, ES256 or EdDSA; the same one for the same arguments."""
    return SigningKey(kid, algorithm, _private(algorithm, kid, bits))


@cache
def _private(algorithm: str, _kid: str | None, bits: int) -> Private:
    if algorithm == "RS256":
        return rsa.generate_private_key(65537, bits)
    if algorithm == "ES256":
        return ec.generate_private_key(ec.SECP256R1())
    return ed25519.Ed25519PrivateKey.generate()


def _public(private: Private) -> dict[str, Any]:
    if isinstance(private, rsa.RSAPrivateKey):
        return RSAAlgorithm.to_jwk(private.public_key(), as_dict=True)
    if isinstance(private, ec.EllipticCurvePrivateKey):
        return ECAlgorithm.to_jwk(private.public_key(), as_dict=True)
    return OKPAlgorithm.to_jwk(private.public_key(), as_dict=True)


class LocalIssuer:
    """To be used as a context. `url` is its name, `jwks_url` where its keys are."""

    def __init__(self, *keys: SigningKey, tls: ssl.SSLContext | None = None) -> None:
        self.keys = list(keys) or [make_key("ES256")]
        self.requests = 0
        self.answer: Callable[[BaseHTTPRequestHandler], None] = self.show_keys
        #: Set when the issuer closes, for an `answer` that waits.
        self.closing = threading.Event()
        self._server = _Server(self)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.url = f"http{'s' if tls else ''}://localhost:{self._server.server_port}"
        self.jwks_url = f"{self.url}/jwks.json"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """From here on nobody answers at its address. May be called again."""
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Those of a good token; a claim that is None is left out."""
        now = int(time.time())
        claims = {"iss": self.url, "aud": AUDIENCE, "sub": "ada", "iat": now, "exp": now + 300}
        return {name: value for name, value in (claims | changes).items() if value is not None}

    def token(self, **changes: Any) -> str:
        """A token with `claims(**changes)` by the newest key."""
        return self.keys[-1].sign(self.claims(**changes))

    def show_keys(self, request: BaseHTTPRequestHandler) -> None:
        reply(request, json.dumps({"keys": [key.jwk() for key in self.keys]}).encode())


class _Server(ThreadingHTTPServer):
    def __init__(self, issuer: LocalIssuer) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.requests += 1
                issuer.answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)

    def handle_error(self, *_: Any) -> None:
        pass  # a client that went away, or one that did not like the certificate


def reply(request: BaseHTTPRequestHandler, body: bytes, status: int = 200, **headers: str) -> None:
    request.send_response(status)
    for name, value in {"content-length": str(len(body)), **headers}.items():
        request.send_header(name.replace("_", "-"), value)
    request.end_headers()
    request.wfile.write(body)
