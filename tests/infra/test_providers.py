"""The providers without a cloud: what they refuse, what they make up, and that they remember nothing wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.infra.terraform import Failed, Stack

VERSIONS = 'terraform {\n  required_providers {\n    google = { source = "hashicorp/google" }\n  }\n}\n'
TOPIC = 'resource "google_pubsub_topic" "%s" {\n  name = "%s"\n%s}\n'
Make = Callable[[str], Stack]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """What makes a stack of a text."""

    def made(text: str) -> Stack:
        source = tmp_path / "source"
        source.mkdir()
        (source / "main.tf").write_text(VERSIONS + text)
        return Stack(source, tmp_path / "stack", providers=("google",))

    return made


REFUSED = {
    "a type that there is not": ('resource "google_pubsub_topik" "a" {}\n', "does not support resource type"),
    "an argument that there is not": (TOPIC % ("a", "a", "  colour = 1\n"), "Unsupported argument"),
    "no argument where one is needed": ('resource "google_pubsub_topic" "a" {}\n', '"name" is required'),
    "a list for a text": ('resource "google_pubsub_topic" "a" {\n  name = []\n}\n', "string required"),
    "what a provider alone can tell": (TOPIC % ("a", "a", "  effective_labels = {}\n"), "cannot be given"),
    "two blocks where one may be": (
        TOPIC % ("a", "a", '  schema_settings { schema = "s" }\n' * 2),
        "No more than 1",
    ),
    "a value that is not documented": (
        TOPIC % ("a", "a", '  schema_settings {\n    schema   = "s"\n    encoding = "XML"\n  }\n'),
        "encoding is 'XML'; possible: ENCODING_UNSPECIFIED, JSON, BINARY",
    ),
}


@pytest.mark.parametrize("what", sorted(REFUSED))
def test_what_the_schema_does_not_know_is_refused(make: Make, what: str) -> None:
    text, reason = REFUSED[what]
    stack = make(text)
    with pytest.raises(Failed) as refused:
        stack.run("validate")
    assert reason in " ".join(str(refused.value).split())


def test_what_is_made_up_is_told_apart_open_in_a_plan_and_kept(make: Make) -> None:
    outputs = 'output "ids" {\n  value = [google_pubsub_topic.a.id, google_pubsub_topic.b.id]\n}\n'
    stack = make(TOPIC % ("a", "one", "") + TOPIC % ("b", "two", "") + outputs)
    assert "(known after apply)" in stack.run("plan")
    stack.run("apply", "-auto-approve")
    assert stack.outputs() == {"ids": ["one.id", "two.id"]}
    stack.run("plan", "-detailed-exitcode")
    stack.edit("main.tf", '"two"', '"three"')
    with pytest.raises(Failed, match="1 to change"):
        stack.run("plan", "-detailed-exitcode")
    stack.run("destroy", "-auto-approve")
    assert "values" not in json.loads(stack.run("show", "-json"))
