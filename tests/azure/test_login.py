"""An operator who has logged in by `az login`: a planted az tells tokens that Azurite checks over TLS."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from core.errors import Denied, StoreError, Transient
from handlers_azure.store import LoginCredential, open_store
from scripts.package import ROOT
from tests.emulators.azurite import ACCOUNT, KEY, Azurite, start

SCOPE = "https://storage.azure.com/.default"
AZ = """#!{python}
import json, pathlib, sys
here = pathlib.Path({here!r})
with open(here / "asked", "a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
sys.stdout.write((here / "says").read_text())
sys.exit(int((here / "code").read_text()))
"""


class Laptop:
    """A folder with a planted az, which says what it is told to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        program = folder / "az"
        program.write_text(AZ.format(python=sys.executable, here=str(folder)))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        self.program = str(program)
        self.log_in("https://storage.azure.com")

    def say(self, text: str, code: int = 0) -> None:
        (self.folder / "says").write_text(text)
        (self.folder / "code").write_text(str(code))

    def log_in(self, audience: str) -> None:
        """Let az tell a token in the form of Entra's, which nobody signed."""
        now = int(time.time())
        claims = {"aud": audience, "iss": "https://sts.windows.net/x/", "iat": now, "nbf": now, "exp": now + 3600}
        parts = [json.dumps(part).encode() for part in ({"alg": "none", "typ": "JWT"}, claims)]
        token = ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in [*parts, b"-"])
        ends = datetime.datetime.fromtimestamp(now + 3600).strftime("%Y-%m-%d %H:%M:%S.000000")
        about = {"accessToken": token, "expiresOn": ends, "expires_on": now + 3600, "tokenType": "Bearer"}
        self.say(json.dumps({**about, "subscription": "x", "tenant": "y"}))

    @property
    def asked(self) -> list[list[str]]:
        file = self.folder / "asked"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@pytest.fixture
def laptop(tmp_path: Path) -> Laptop:
    return Laptop(tmp_path)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of this machine's, with its key in the file beside it."""
    folder, key = tmp_path_factory.mktemp("tls"), ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "here")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now - datetime.timedelta(1))
    builder = builder.not_valid_after(now + datetime.timedelta(2))
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    signed = builder.add_extension(names, critical=False).sign(key, hashes.SHA256())
    (folder / "cert.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    kind = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, *kind))
    return folder / "cert.pem"


@pytest.fixture(scope="module")
def azurite(certificate: Path) -> Iterator[Azurite]:
    """Azurite behind TLS, which takes bearer tokens and looks at their issuer, audience and life."""
    key = str(certificate.with_name("key.pem"))
    with start("--oauth", "basic", "--cert", str(certificate), "--key", key) as running:
        yield running


@pytest.fixture
def env(laptop: Laptop, azurite: Azurite, certificate: Path) -> dict[str, str]:
    """What the operator's shell has: an account's name, no key."""
    return {
        **{"AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT, "AZURE_STORAGE_ENDPOINT": f"{azurite.endpoint}/{ACCOUNT}"},
        **{"PATH": f"{laptop.folder}:/usr/bin:/bin", "HOME": str(laptop.folder)},
        **{"REQUESTS_CA_BUNDLE": str(certificate), "SSL_CERT_FILE": str(certificate)},
    }


@pytest.fixture
def url(azurite: Azurite, certificate: Path) -> str:
    from azure.storage.blob import BlobServiceClient

    address = f"{azurite.endpoint}/{ACCOUNT}"
    with BlobServiceClient(address, credential=KEY, connection_verify=str(certificate)) as account:
        name = f"store-{time.monotonic_ns()}"
        account.create_container(name).close()
    return f"az://{name}"


def test_the_doctor_writes_and_reads_by_the_login_alone(laptop: Laptop, env: dict[str, str], url: str) -> None:
    """The SDK that writes and the reader that predicts."""
    command = [sys.executable, "-m", "scripts.cli", "doctor", "--store", url, "--json"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["ok"]
    assert {"reader: bytes", "reader: names"} <= {found["name"] for found in told["findings"]}
    assert ["account", "get-access-token", "--output", "json", "--scope", SCOPE] in laptop.asked
    assert len(laptop.asked) == 2  # each of them once


def test_without_a_login_the_doctor_says_how(laptop: Laptop, env: dict[str, str], url: str) -> None:
    laptop.say("", code=1)
    command = [sys.executable, "-m", "scripts.cli", "doctor", "--store", url]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert done.stderr.startswith("polysky: az gives no token: run `az login`")
    assert done.stderr.count("\n") == 1


def test_a_login_for_another_service_is_refused(
    laptop: Laptop, env: dict[str, str], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", env["REQUESTS_CA_BUNDLE"])
    laptop.log_in("https://vault.azure.net")
    with pytest.raises(Denied, match="the store refused"):
        open_store(url, env=env).put("a", b"b")
    laptop.log_in("https://storage.azure.com")
    store = open_store(url, env=env)
    store.put("a", b"b")
    assert store.get("a").data == b"b"


def test_a_token_is_asked_for_once_and_again_before_it_ends(laptop: Laptop) -> None:
    now = [1000.0]
    laptop.say(json.dumps({"accessToken": "one", "expires_on": 5000}))
    credential = LoginCredential(laptop.program, clock=lambda: now[0])
    assert credential.get_token(SCOPE, enable_cae=True) == ("one", 5000)
    laptop.say(json.dumps({"accessToken": "two", "expiresOn": "2100-01-01 00:00:00.000000"}))  # as older ones say
    assert credential.get_token(SCOPE).token == "one"
    now[0] = 4701.0
    assert credential.get_token(SCOPE).token == "two"
    assert len(laptop.asked) == 2
    assert credential.get_token(SCOPE).expires_on > 4_000_000_000


@pytest.mark.parametrize(
    ("says", "code", "expected"),
    [("", 1, Denied), ("", 0, Transient), ("[]", 0, Transient), ('{"expires_on": 1}', 0, Transient)],
)
def test_each_failure_of_az_has_one_meaning(
    laptop: Laptop, says: str, code: int, expected: type[StoreError]
) -> None:
    laptop.say(says, code)
    with pytest.raises(expected):
        LoginCredential(laptop.program).get_token(SCOPE)
    with pytest.raises(Transient):
        LoginCredential(os.devnull).get_token(SCOPE)


def test_a_key_and_an_identity_come_before_a_login(laptop: Laptop, env: dict[str, str]) -> None:
    open_store("az://store", env={**env, "AZURE_STORAGE_ACCOUNT_KEY": "a2V5"})
    gone = {**env, "IDENTITY_ENDPOINT": "http://127.0.0.1:1/token", "IDENTITY_HEADER": "x"}
    with pytest.raises(Transient):
        open_store("az://store", env=gone).put("a", b"b")
    assert laptop.asked == []
