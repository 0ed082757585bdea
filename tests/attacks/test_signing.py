"""Signed artifacts: only what the operator's key signed is loaded where a key is asked for."""

from __future__ import annotations

import base64
import random
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from core import artifact, flatfile, signing
from core.config import Settings
from core.errors import ConfigError, IntegrityError
from core.flatfile import FlatFile
from core.schema import Column
from tests.core.house import text_model
from tests.core.models import LABELS, draft, text_batch


def pair(seed: int) -> tuple[str, str]:
    """Return a private and a public key as the settings hold them."""
    raw = random.Random(seed).randbytes(32)
    public = Ed25519PrivateKey.from_private_bytes(raw).public_key()
    encoded = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return base64.b64encode(raw).decode(), base64.b64encode(encoded).decode()


SIGNING, VERIFY = pair(1)
SIGNED = signing.sign(text_model(), SIGNING)


def test_a_signed_artifact_loads_with_the_key_and_without() -> None:
    for key in (VERIFY, ""):
        model = artifact.load(SIGNED, FlatFile(SIGNED).header_sha256, key)
        model.file.verify_all()
        model.replay()


def test_a_signature_changes_nothing_but_the_header() -> None:
    plain, found = FlatFile(text_model()), FlatFile(SIGNED)
    assert {**found.header, "signature": None} == {**plain.header, "signature": None}
    assert all(bytes(found.raw(name)) == bytes(plain.raw(name)) for name in plain.sections)
    assert signing.sign(text_model(), SIGNING) == signing.sign(SIGNED, SIGNING) == SIGNED


def test_an_unsigned_artifact_is_refused_where_a_key_is_asked_for() -> None:
    with pytest.raises(IntegrityError, match="not signed"):
        artifact.load(text_model(), None, VERIFY)


def test_an_artifact_signed_by_somebody_else_is_refused() -> None:
    other, _ = pair(2)
    with pytest.raises(IntegrityError, match="POLYSKY_VERIFY_KEY"):
        artifact.load(signing.sign(text_model(), other), None, VERIFY)


@pytest.mark.parametrize(
    "signature", [None, "", "x", 7, [], "A" * 88, base64.b64encode(b"\0" * 64).decode(), "é" * 88]
)
def test_no_other_signature_passes(signature: object) -> None:
    header = {**FlatFile(SIGNED).header, "signature": signature}
    with pytest.raises(IntegrityError):
        artifact.load(flatfile.with_header(SIGNED, header), None, VERIFY)


def test_a_signature_over_the_same_bytes_for_another_purpose_does_not_pass() -> None:
    """A key may sign other things too: what it signed there must not be taken for an artifact."""
    header = FlatFile(text_model()).header
    key = Ed25519PrivateKey.from_private_bytes(base64.b64decode(SIGNING))
    for said in (b"", b"another header\n"):
        signature = base64.b64encode(key.sign(said + flatfile.encode_header(header))).decode()
        with pytest.raises(IntegrityError, match="POLYSKY_VERIFY_KEY"):
            artifact.load(flatfile.with_header(SIGNED, {**header, "signature": signature}), None, VERIFY)


def test_a_signature_covers_the_whole_manifest_and_through_it_every_page() -> None:
    header = FlatFile(SIGNED).header
    for name, value in header.items():
        if name == "signature":
            continue
        changed = flatfile.with_header(SIGNED, {**header, name: [value]})
        with pytest.raises(IntegrityError):
            signing.check(FlatFile(changed), VERIFY)
    renamed = flatfile.with_header(SIGNED, {**header, "name": "other"})
    with pytest.raises(IntegrityError, match="POLYSKY_VERIFY_KEY"):
        artifact.load(renamed, FlatFile(renamed).header_sha256, VERIFY)


def test_export_signs_if_there_is_a_key() -> None:
    made, _, _ = draft([Column("text", "text")], text_batch(), LABELS)
    artifact.load(artifact.export(made, SIGNING), None, VERIFY).replay()
    with pytest.raises(IntegrityError):
        artifact.load(artifact.export(made), None, VERIFY)


@pytest.mark.parametrize("key", ["", "x", "A" * 44, SIGNING + "=", SIGNING[:-4] + "é==="])
def test_a_bad_key_names_its_setting_and_not_itself(key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        signing.sign(text_model(), key)
    assert "POLYSKY_SIGNING_KEY" in caught.value.message
    assert not key or key not in caught.value.message
    with pytest.raises(ConfigError, match="POLYSKY_VERIFY_KEY"):
        signing.check(FlatFile(SIGNED), key)


def test_the_settings_take_keys_in_base64_only() -> None:
    found = Settings.from_env({"POLYSKY_VERIFY_KEY": VERIFY, "POLYSKY_SIGNING_KEY": f" {SIGNING} "})
    assert (found.verify_key, found.signing_key) == (VERIFY, SIGNING)
    for bad in ("x", SIGNING[:-1], SIGNING[:-2] + "-="):
        with pytest.raises(ConfigError) as caught:
            Settings.from_env({"POLYSKY_SIGNING_KEY": bad})
        assert "POLYSKY_SIGNING_KEY must be 32 bytes in base64" in caught.value.message


def test_cryptography_is_not_loaded_where_no_key_is_asked_for() -> None:
    code = (
        "import sys\nfrom core import artifact\nfrom tests.core.house import text_model\n"
        "artifact.load(text_model()).replay()\n"
        "assert not [name for name in sys.modules if name.partition('.')[0] == 'cryptography']"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
