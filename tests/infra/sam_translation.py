"""Writes what SAM makes of templates, as a JSON list; run by the interpreter that SAM is installed for.

Arguments: parameters as JSON, then the templates' paths. One that SAM refuses becomes its complaint.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from typing import Any


class NoPolicies:
    """Looks up no managed policy: the templates name none."""

    def load(self) -> dict[str, str]:
        """Return nothing."""
        return {}


def translate(path: str, parameters: dict[str, Any]) -> Any:
    """Return CloudFormation's template, or the complaint. Local packages stand for uploaded ones."""
    parse = import_module("samcli.yamlhelper").yaml_parse
    refused = import_module("samtranslator.model.exceptions").InvalidDocumentException
    transform = import_module("samtranslator.translator.transform").transform
    with open(path, encoding="utf-8") as file:
        template = parse(file.read())
    values = {name: one.get("Default") for name, one in template["Parameters"].items()} | parameters
    for resource in template["Resources"].values():
        if resource["Type"] == "AWS::Serverless::Function":
            resource["Properties"]["CodeUri"] = f"s3://packages/{resource['Properties']['CodeUri'].split('/')[-1]}"
    try:
        return transform(template, values, NoPolicies())
    except refused as error:
        return str([one.message for one in error.causes])


if __name__ == "__main__":
    json.dump([translate(path, json.loads(sys.argv[1])) for path in sys.argv[2:]], sys.stdout)
