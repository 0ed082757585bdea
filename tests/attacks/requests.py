"""Requests of two kinds: plain ones, which any platform hands on unchanged, and wild ones, made of bytes.

Plain ones come from the interface's own description. All carry secrets that no answer and no log line may hold.
"""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from core.api import ENDPOINTS
from core.web import Endpoint
from tests.attacks.samples import KEYS, Sampler
from tests.conformance.exchange import Pairs, Wire

NAMES = {
    "model": ("support", "support", "prices", "photos", "nothing", "con", "a-b"),
    "version": ("v-000000000004", "v-000000000005", "production", "staging", "v-0123456789ab"),
    "alias": ("production", "staging", "shadow", "x"),
    "job": ("support.0123456789abcdef", "prices.0000000000000000"),
    "asset": ("swagger-ui.css", "none.css"),  # the bundle is too large for a load balancer
}
METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS")
QUERIES = ("version", "at", "limit", "after", "alias", "model", "name", "x")
TYPES = (
    "application/json",
    "application/json; charset=utf-8",
    "text/csv",
    "text/plain",
    "application/x-ndjson",
    "application/octet-stream",
    "image/png",
    "text/html; charset=latin-1",
    "application/json;;",
)
_HEADERS = (
    "X-Model-Version",
    "Idempotency-Key",
    "X-Request-Id",
    "Origin",
    "Content-Encoding",
    "X-Api-Key",
    "Accept",
    "Authorization",
    "Content-Type",
    "X-Forwarded-For",
    "Forwarded",
    "X-Anything",
    "If-Match",
)
_TEXTS = (
    b"NaN",
    b"-Infinity",
    b"1e400",
    b"\\ud800",
    b"\\u0000",
    b"{",
    b"]",
    b'"',
    b"\xff",
    b"\0",
    b"\xef\xbb\xbf",
    b"9" * 5000,
    b"[" * 3000,
    b'{"a":' * 500,
    b"\r\n",
    b",",
    b"%s",
    b"${jndi:x}",
    b"'; --",
)


class Maker:
    """Makes requests. `canary` is the secret that goes into every field, `tokens` are by name."""

    def __init__(self, document: Mapping[str, Any], tokens: Mapping[str, str], seed: int, canary: str) -> None:
        self.rng = random.Random(seed)
        self._tokens, self._canary = tokens, canary
        self._sampler = Sampler(document, self.rng, canary)

    def plain(self) -> Wire:
        """Return a request that every platform hands on as it is, and that the interface describes."""
        endpoint = self.rng.choice(ENDPOINTS)
        headers = [*self._credentials()]
        body = b""
        if endpoint.takes and endpoint.method != "GET":
            body = self._body(endpoint)
            headers.append(("Content-Type", "application/json"))
        if self.rng.random() < 0.2:
            headers.append(("Idempotency-Key", self.rng.choice(["k1", "k2", "x" * 200])))
        if self.rng.random() < 0.1:
            headers.append(("X-Model-Version", self.rng.choice(NAMES["version"])))
        if self.rng.random() < 0.2:
            headers.append(("X-Other", self._canary))
        return Wire(endpoint.method, self._path(endpoint), self._query(), tuple(headers), body)

    def _body(self, endpoint: Endpoint) -> bytes:
        return json.dumps(self._sampler.body(endpoint.takes), allow_nan=False).encode()[:4000]

    def _path(self, endpoint: Endpoint) -> str:
        parts = endpoint.path.split("/")
        return "/".join(self.rng.choice(NAMES[part[1:-1]]) if part.startswith("{") else part for part in parts)

    def _query(self) -> str:
        if self.rng.random() < 0.75:
            return ""
        names = self.rng.sample(QUERIES, self.rng.randint(1, 2))
        values = ("production", "v-000000000004", "1", "0", "10", "1700000000", "true", self._canary)
        return "&".join(f"{name}={self.rng.choice(values)}" for name in names)

    def _credentials(self) -> Pairs:
        name = self.rng.choice(("admin", "admin", "admin", *self._tokens, ""))
        if not name:
            return ()
        token = self._tokens[name]
        return (("X-Api-Key", token),) if self.rng.random() < 0.2 else (("Authorization", f"Bearer {token}"),)

    # -- wild

    def wild(self) -> Wire:
        """Return a request with anything anywhere that HTTP can carry at all."""
        rng = self.rng
        wire = self.plain()
        for _ in range(rng.randint(1, 4)):
            wire = rng.choice((self._method, self._paths, self._queries, self._header, self._bytes))(wire)
        return wire

    def _method(self, wire: Wire) -> Wire:
        return wire._replace(method=self.rng.choice((*METHODS, *METHODS, "PURGE", "TRACE")))

    def _paths(self, wire: Wire) -> Wire:
        rng = self.rng
        odd = (
            "..",
            "%2e%2e",
            "%2F",
            "%5c",
            "%00",
            "%",
            "%zz",
            "%ff",
            "%C3%A9",
            "con",
            "A" * 300,
            "a.b",
            "@",
            ";x",
            "\\",
            "%0d%0a",
            "{model}",
            "~",
            "'",
            '"',
            "<x>",
            "|",
            self._canary,
            quote(self._canary + "/\u2028"),
        )
        parts = wire.path[1:].split("/")
        parts[rng.randrange(len(parts))] = "".join(rng.choices(odd, k=rng.randint(1, 3)))
        tail = rng.choice(("", "", "/", "//"))
        return wire._replace(path="/" + "/".join(parts) + tail)

    def _queries(self, wire: Wire) -> Wire:
        parts = (
            "a",
            "=",
            "&",
            "%",
            "%00",
            "+",
            "version",
            "at",
            "limit",
            "1e9",
            "-1",
            "%ff",
            "999999999999999999999",
            "[",
            ";",
            "after",
            self._canary,
            "x" * 500,
            "2020-01-01T00:00:00Z",
            "%F0%9F%98%80",
        )
        return wire._replace(query="".join(self.rng.choices(parts, k=self.rng.randint(1, 9))))

    def _header(self, wire: Wire) -> Wire:
        rng = self.rng
        name = rng.choice(_HEADERS)
        values = (
            self._canary,
            f"Bearer {self._canary}",
            f"polysky_{self._canary}",
            "gzip",
            "identity",
            "gzip, br",
            "*",
            f"Basic {self._canary}",
            f"Bearer  {self._tokens['admin']} x",
            "production",
            "\xe9\xff",
            "x" * 5000,
            "",
            f"https://app.example.{self._canary}",
            "https://app.example",
            "0",
            rng.choice(TYPES),
        )
        kept = [pair for pair in wire.headers if pair[0] != name or rng.random() < 0.2]
        return wire._replace(headers=(*kept, (name, rng.choice(values))))

    def _bytes(self, wire: Wire) -> Wire:
        rng, body = self.rng, wire.body or b'{"text": "card"}'
        at = rng.randrange(len(body) + 1)
        choice = rng.randrange(7)
        if choice == 0:
            body = body[:at] + rng.choice(_TEXTS) + body[at:]
        elif choice == 1:
            body = body[:at]
        elif choice == 2:
            body = rng.randbytes(rng.randrange(200)) + self._canary.encode()
        elif choice == 3:
            body = b"x" * rng.choice((4096, 4097, 20_000))
        elif choice == 4:
            packed = gzip.compress(body + b" " * rng.choice((0, 5000)), mtime=0)
            cut = packed[: rng.choice((len(packed), len(packed) // 2))]
            return wire._replace(body=cut, headers=(*wire.headers, ("Content-Encoding", "gzip")))
        elif choice == 5:
            body = json.dumps(self._odd()).encode()
        else:
            body = body.decode("utf-8", "replace").encode("utf-16")
        chunked = rng.random() < 0.1
        return wire._replace(body=body, chunked=chunked)

    def _odd(self) -> Any:
        made = {name: self._sampler.leaf() for name in self.rng.sample(KEYS, 4)}
        return self._sampler.nameless(self._sampler.wronged(made))


def secrets_of(tokens: Mapping[str, str], canary: str) -> Sequence[bytes]:
    """Return what no answer and no log line may hold: the canary, and each token's secret part."""
    return (canary.encode(), *(token.split("_")[2].encode() for token in tokens.values()))
