"""Settings from the environment."""

from __future__ import annotations

import pytest

from core.config import PREFIX, Settings
from core.errors import ConfigError


def test_an_empty_environment_gives_the_defaults() -> None:
    assert Settings.from_env({"HOME": "/root"}) == Settings()


def test_every_field_has_a_rule_and_its_default_passes_it() -> None:
    env = {
        PREFIX + field.upper(): ",".join(value) if isinstance(value, tuple) else str(value)
        for field, value in Settings()._asdict().items()
    }
    assert Settings.from_env(env) == Settings()


def test_values_are_cast_to_their_types() -> None:
    settings = Settings.from_env(
        {"POLYSKY_STORE": " s3://bucket/x ", "POLYSKY_REFRESH_S": "0.5", "POLYSKY_MAX_BATCH_ROWS": "7",
         "POLYSKY_PUBLIC_DOCS": "Yes", "POLYSKY_BASE_PATH": "/ml/v1/",
         "POLYSKY_CORS_ORIGINS": "https://a.example, http://localhost:3000,"}
    )  # fmt: skip
    assert settings.store == "s3://bucket/x"
    assert settings.refresh_s == 0.5
    assert settings.max_batch_rows == 7
    assert settings.public_docs is True
    assert settings.base_path == "/ml/v1"
    assert settings.cors_origins == ("https://a.example", "http://localhost:3000")


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("POLYSKY_STORE", "  "),
        ("POLYSKY_STORE", "a\0b"),
        ("POLYSKY_REFRESH_S", "nan"),
        ("POLYSKY_REFRESH_S", "1e999"),
        ("POLYSKY_REFRESH_S", "-1"),
        ("POLYSKY_LEASE_S", "0"),
        ("POLYSKY_MAX_BODY_BYTES", "1_048_576"),
        ("POLYSKY_MAX_BODY_BYTES", "1"),
        ("POLYSKY_MAX_BATCH_ROWS", "٣"),
        ("POLYSKY_MAX_BATCH_ROWS", "2.5"),
        ("POLYSKY_PUBLIC_DOCS", "maybe"),
        ("POLYSKY_BASE_PATH", "ml"),
        ("POLYSKY_BASE_PATH", "/a//b"),
        ("POLYSKY_BASE_PATH", "/../x?"),
        ("POLYSKY_CORS_ORIGINS", "*"),
        ("POLYSKY_CORS_ORIGINS", "https://a.example/path"),
    ],
)
def test_a_bad_value_is_refused_by_the_name_of_its_variable(variable: str, text: str) -> None:
    with pytest.raises(ConfigError, match=variable) as caught:
        Settings.from_env({variable: text})
    assert caught.value.fields == {"settings": [variable]}


def test_all_bad_variables_are_named_at_once_and_no_value_is_echoed() -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.from_env({"POLYSKY_RATE_PER_S": "secret-one", "POLYSKY_LEASE_S": "secret-two"})
    assert "POLYSKY_RATE_PER_S" in caught.value.message
    assert "POLYSKY_LEASE_S" in caught.value.message
    assert "secret" not in caught.value.message
