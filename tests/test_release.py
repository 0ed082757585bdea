"""The release check sees what it is there to see."""

from __future__ import annotations

from scripts.check_release import main, problems

GOOD = "# Changelog\n\n## [Unreleased]\n\n## [1.2.0] - 2026-05-01\n\n## [1.1.9] - 2026-04-01\n"


def test_this_repository_is_consistent() -> None:
    assert main() == 0


def test_a_changelog_that_matches_has_no_problems() -> None:
    assert problems("1.2.0", GOOD) == []


def test_a_version_that_was_not_written_down_is_told() -> None:
    assert problems("1.3.0", GOOD) == [
        "pyproject.toml says version 1.3.0, the latest release in CHANGELOG.md is 1.2.0"
    ]


def test_a_missing_unreleased_heading_is_told() -> None:
    assert "Unreleased" in problems("1.2.0", GOOD.replace("## [Unreleased]\n", ""))[0]


def test_a_release_without_a_date_is_told() -> None:
    assert "with a date" in problems("1.2.0", GOOD.replace(" - 2026-04-01", ""))[0]


def test_releases_out_of_order_are_told() -> None:
    assert "newest first" in problems("1.2.0", GOOD.replace("1.1.9", "1.2.1"))[0]


def test_a_changelog_without_releases_is_told() -> None:
    assert "latest release in CHANGELOG.md is none" in problems("1.2.0", "## [Unreleased]\n")[0]
