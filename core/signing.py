"""Ed25519 signatures over an artifact's header, which pins every byte of it.

The log proves that an artifact is the one that was published; a signature proves who published it, even where the
whole bucket was rewritten. Keys are 32 raw bytes in base64. `cryptography` is imported when a key is used.
"""

from __future__ import annotations

import binascii
from collections.abc import Mapping
from typing import Any

from core.errors import ConfigError, IntegrityError
from core.flatfile import FlatFile, encode_header, with_header

FIELD = "signature"
KEY_BYTES, SIGNATURE_BYTES = 32, 64
_DOMAIN = b"polysky artifact header\n"  # what is signed here can be mistaken for nothing else


def sign(data: bytes, signing_key: str) -> bytes:
    """Return the artifact `data` with a signature in its header. The same data and key give the same bytes."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.from_private_bytes(read_key(signing_key, "POLYSKY_SIGNING_KEY"))
    header = FlatFile(data).header
    signature = binascii.b2a_base64(key.sign(_signed_bytes(header)), newline=False).decode()
    return with_header(data, {**header, FIELD: signature})


def check(file: FlatFile, verify_key: str) -> None:
    """Raise IntegrityError unless the holder of the private key of `verify_key` signed the file's header."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    key = Ed25519PublicKey.from_public_bytes(read_key(verify_key, "POLYSKY_VERIFY_KEY"))
    signature = _unspelt(file.header.get(FIELD), SIGNATURE_BYTES)
    if signature is None:
        raise IntegrityError("artifact is not signed, and this process takes signed ones only")
    try:
        key.verify(signature, _signed_bytes(file.header))
    except (InvalidSignature, ValueError):  # ValueError: a header that has no canonical form
        raise IntegrityError("artifact is not signed by the holder of POLYSKY_VERIFY_KEY's private key") from None


def read_key(text: str, setting: str) -> bytes:
    """Return the bytes of a key in base64. Raises ConfigError that names the setting and never the key."""
    key = _unspelt(text, KEY_BYTES)
    if key is None:
        raise ConfigError(f"{setting} must be {KEY_BYTES} bytes in base64", setting=setting)
    return key


def _signed_bytes(header: Mapping[str, Any]) -> bytes:
    return _DOMAIN + encode_header({name: value for name, value in header.items() if name != FIELD})


def _unspelt(text: Any, size: int) -> bytes | None:
    try:
        data = binascii.a2b_base64(text, strict_mode=True)
    except (ValueError, TypeError):
        return None
    return data if len(data) == size else None
