"""What AWS's stack promises of functions, rights, events and store, each with the one argument that breaks it."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

from tests.deploy.account import FUNCTIONS
from tests.infra.promises import Promise, Values

# every option that takes no part of its own; the others' values are the test's
OPTIONS: dict[str, Any] = {
    **{"architecture": "arm64", "predict_memory_mb": 512, "train_memory_mb": 2048, "predict_concurrency": 7},
    **{"train_concurrency": 3, "snap_start": True, "throttle": {"rate": 50, "burst": 60}, "tick_minutes": 10},
    **{"log_days": 7, "alarm_email": "night@example.com", "settings": {"POLYSKY_REFRESH_S": "5"}},
}


def _sizes(found: Values, name: str) -> tuple[Any, ...]:
    one = found["functions"][name]
    told = (one["MemorySize"], one["Timeout"], one["EphemeralStorage"]["Size"], one["TracingConfig"]["Mode"])
    return one["Handler"].removeprefix("handlers_aws.main."), *told


def _environment(found: Values, name: str) -> Any:
    return found["functions"][name]["Environment"]["Variables"]


def _expected_environment(found: Values, name: str) -> dict[str, str]:
    told, has_secret = found["told"], bool(found["told"].get("tokens_secret"))
    return {
        **{"POLYSKY_STORE": f"s3://{found['bucket']}", "POWERTOOLS_SERVICE_NAME": found["name"]},
        **{"AWS_ENDPOINT_URL": told["endpoint"], "POLYSKY_ALLOW_HTTP": "true", **told["settings"]},
        **({"POLYSKY_TOKENS_SECRET": f"{found['name']}-tokens"} if has_secret else {}),
        **({"SECRETS_MANAGER_TTL": "0"} if has_secret and name == "predict" else {}),
    }


def _runs(found: Values, name: str) -> bool:
    """Return whether a function's code is the package that lies in the bucket, under its own sum."""
    package = "aws-predict.zip" if name == "predict" else "aws-train.zip"
    ((key, data),) = [(key, data) for key, data in found["objects"].items() if key.endswith(f"/{package}")]
    code = base64.b64encode(hashlib.sha256(data).digest()).decode()
    own = hashlib.md5(data, usedforsecurity=False).hexdigest()
    return bool(found["functions"][name]["CodeSha256"] == code) and key == f"packages/{own}/{package}"


def alias(found: Values, name: str) -> str:
    return f"arn:aws:lambda:{found['here']}:function:{found['name']}-{name}:live"


def _allowed(found: Values, service: str, *asked: str) -> list[Any]:
    return [("Allow", "lambda:InvokeFunction", f"{service}.amazonaws.com", sorted(asked))]


def _refusal(found: Values, name: str) -> tuple[Any, ...]:
    """Return of a statement of the bucket's policy: effect, actions, keys, and what its conditions ask for."""
    one = found["store"]["refusals"][name]
    keys = sorted(each.partition("/")[2] for each in _listed(one["Resource"]))
    asked = {variable: value for test in one["Condition"].values() for variable, value in test.items()}
    return one["Effect"], one["Principal"], sorted(_listed(one["Action"])), keys, asked


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _rights(found: Values, name: str) -> set[tuple[str, str]]:
    """Return what a function may do, in the short: on keys of the store, or on nothing named."""
    store = f"arn:aws:s3:::{found['bucket']}"
    return {
        (action, place.removeprefix(f"{store}/").removeprefix(store))
        for action, place in found["roles"][name]["rights"]
        if action.startswith(("s3:", "sqs:"))
    }


def _reserved(found: Values, kind: str) -> int | None:
    told = found["told"][f"{kind}_concurrency"]
    return None if told == -1 else int(told)


def _rate(minutes: int) -> str:
    return f"rate({minutes} minute{'' if minutes == 1 else 's'})"


def _canary(found: Values, newest: str) -> tuple[str, dict[str, float]]:
    """Return the version of the predicting function that serves, and the share of others."""
    told = found["told"].get("canary")
    if told is None:
        return newest, {}
    return told["version"], {newest: told["weight"]} if told["weight"] else {}


def _layers(found: Values) -> list[str]:
    told = found["told"]
    return [told["secrets_extension_layer"]] if told.get("tokens_secret") else []


PROMISES = {
    "each function is as large and patient as its work asks": Promise(
        lambda found: (
            {name: _sizes(found, name) for name in FUNCTIONS}
            == {
                "predict": ("http", found["told"]["predict_memory_mb"], 29, 512, "PassThrough"),
                "control": ("control", 1769, 29, 4096, "Active"),
                "job": ("job", found["told"]["train_memory_mb"], 900, 4096, "Active"),
                "tick": ("tick", found["told"]["train_memory_mb"], 900, 4096, "Active"),
            }
        ),
        *("functions.tf", 'handler = "job", timeout_s = 900', 'handler = "job", timeout_s = 300'),
    ),
    "all run on the processor and language that the packages were made for": Promise(
        lambda found: all(
            (one["Runtime"], one["Architectures"], one["PackageType"])
            == ("python3.13", [found["told"]["architecture"]], "Zip")
            for one in found["functions"].values()
        ),
        *("functions.tf", "[var.architecture]", '[var.architecture == "arm64" ? "x86_64" : "arm64"]'),
    ),
    "each runs its package as its role": Promise(
        lambda found: all(
            _runs(found, name)
            and found["functions"][name]["Role"].endswith(f":role/{found['name']}-{name}")
            and found["roles"][name]["taken by"] == {"Service": "lambda.amazonaws.com"}
            for name in FUNCTIONS
        ),
        *("functions.tf", "aws_iam_role.function[each.key].arn", 'aws_iam_role.function["tick"].arn'),
    ),
    "each knows the store, its name, the secret and what the operator set": Promise(
        lambda found: all(_environment(found, name) == _expected_environment(found, name) for name in FUNCTIONS),
        *("functions.tf", 'SECRETS_MANAGER_TTL = "0"', 'SECRETS_MANAGER_TTL = "300"'),
    ),
    "no more run at once than was told": Promise(
        lambda found: (
            {name: one["Reserved"] for name, one in found["functions"].items()}
            == {
                **{"predict": _reserved(found, "predict"), "control": None},
                **{"job": _reserved(found, "train"), "tick": _reserved(found, "train") and 1},
            }
        ),
        *("functions.tf", "var.train_concurrency == -1 ? -1 : 1 })", "var.train_concurrency == -1 ? -1 : 2 })"),
    ),
    "only who predicts carries the extension that reads secrets": Promise(
        lambda found: (
            {name: [layer["Arn"] for layer in one.get("Layers", [])] for name, one in found["functions"].items()}
            == {name: _layers(found) if name == "predict" else [] for name in FUNCTIONS}
        ),
        *("functions.tf", 'each.key == "predict" ? compact(', 'each.key == "control" ? compact('),
    ),
    "only who predicts starts from a snapshot": Promise(
        lambda found: (
            {name: one["SnapStart"]["ApplyOn"] for name, one in found["functions"].items()}
            == {
                name: "PublishedVersions" if name == "predict" and found["told"]["snap_start"] else "None"
                for name in FUNCTIONS
            }
        ),
        *("functions.tf", 'var.snap_start && each.key == "predict"', 'var.snap_start && each.key == "none"'),
    ),
    "lines are JSON, in a group of the function's own": Promise(
        lambda found: all(
            (told["LogFormat"], told["LogGroup"]) == ("JSON", f"/aws/lambda/{found['name']}-{name}")
            for name in FUNCTIONS
            for told in [found["functions"][name].get("LoggingConfig", {"LogFormat": None, "LogGroup": None})]
        ),
        *("functions.tf", 'log_format = "JSON"', 'log_format = "Text"'),
    ),
    "the newest version serves, alone unless a canary is told": Promise(
        lambda found: all(
            (one["Served"], one["Shares"])
            == (_canary(found, one["Newest"]) if name == "predict" else (one["Newest"], {}))
            for name, one in found["functions"].items()
        ),
        *("functions.tf", "function_version = local.serving[each.key]", 'function_version = "$LATEST"'),
    ),
    "the API may call what answers it, and nobody else may": Promise(
        lambda found: all(
            found["functions"][name]["Callers"]
            == _allowed(found, "apigateway", f"arn:aws:execute-api:{found['here']}:{found['api']['id']}/*/*")
            for name in ("predict", "control")
        ),
        *("api.tf", "execution_arn}/*/*", "execution_arn}/*"),
    ),
    "the bucket may call the job, and nobody the tick": Promise(
        lambda found: (
            found["functions"]["job"]["Callers"]
            == _allowed(found, "s3", f"arn:aws:s3:::{found['bucket']}", found["here"].partition(":")[2])
            and found["functions"]["tick"]["Callers"] == []
        ),
        *("functions.tf", "  source_account = data.aws_caller_identity.here.account_id\n", ""),
    ),
    "an event is tried three times, six hours long, then kept": Promise(
        lambda found: (
            {name: found["failures"][name] for name in ("retries", "seconds", "then")}
            == {"retries": 2, "seconds": 21600, "then": found["failures"]["queue"]}
        ),
        *("functions.tf", "maximum_retry_attempts       = 2", "maximum_retry_attempts       = 1"),
    ),
    "failed events are kept for two weeks, encrypted": Promise(
        lambda found: (found["failures"]["kept"], found["failures"]["encrypted"]) == ("1209600", "true"),
        *("functions.tf", "message_retention_seconds = 1209600", "message_retention_seconds = 345600"),
    ),
    "the tick comes as often as told, on time, with nothing to try again": Promise(
        lambda found: (
            (one := found["schedule"])["ScheduleExpression"] == _rate(found["told"]["tick_minutes"])
            and (one["State"], one["FlexibleTimeWindow"]["Mode"]) == ("ENABLED", "OFF")
            and one["Target"]["RetryPolicy"]["MaximumRetryAttempts"] == 0
            and json.loads(one["Target"]["Input"]) == {"source": "polysky.tick"}
            and one["Target"]["Arn"] == alias(found, "tick")
        ),
        *("schedule.tf", "maximum_retry_attempts = 0", "maximum_retry_attempts = 1"),
    ),
    "the clock may start the tick and nothing else": Promise(
        lambda found: (
            (one := found["roles"]["scheduler"])["rights"] == {("lambda:InvokeFunction", alias(found, "tick"))}
            and found["schedule"]["Target"]["RoleArn"].endswith(f":role/{found['name']}-scheduler")
            and one["taken by"] == {"Service": "scheduler.amazonaws.com"}
            and one["if"] == {"StringEquals": {"aws:SourceAccount": found["here"].partition(":")[2]}}
        ),
        *("schedule.tf", 'aws_lambda_alias.live["tick"].arn]', 'aws_lambda_alias.live["job"].arn]'),
    ),
    "the store keeps versions, from the first object on": Promise(
        lambda found: (found["store"]["versions"], found["store"]["unkept"]) == ("Enabled", []),
        *("bucket.tf", '{ status = "Enabled" }', '{ status = "Suspended" }'),
    ),
    "the public is shut out of it": Promise(
        lambda found: len(found["store"]["shut"]) == 4 and all(found["store"]["shut"].values()),
        *("bucket.tf", "block_public_policy     = true", "block_public_policy     = false"),
    ),
    "all in it is the bucket's owner's": Promise(
        lambda found: found["store"]["owner"] == ["BucketOwnerEnforced"],
        *("bucket.tf", "BucketOwnerEnforced", "BucketOwnerPreferred"),
    ),
    "all in it is encrypted": Promise(
        lambda found: found["store"]["encryption"] == ["AES256"],
        *("bucket.tf", 'sse_algorithm = "AES256"', 'sse_algorithm = "aws:kms"'),
    ),
    "what was replaced is kept for 90 days, what was half uploaded for 7": Promise(
        lambda found: (
            [
                (one["Status"], one["NoncurrentVersionExpiration"], one["AbortIncompleteMultipartUpload"])
                for one in found["store"]["lifecycle"]
            ]
            == [("Enabled", {"NoncurrentDays": 90}, {"DaysAfterInitiation": 7})]
        ),
        *("bucket.tf", "noncurrent_days = 90", "noncurrent_days = 30"),
    ),
    "log entries and artifacts are created and never replaced": Promise(
        lambda found: (
            _refusal(found, "CreateOnly")
            == (
                *("Deny", "*", ["s3:PutObject"], ["reg/*/art/*", "reg/*/log/*"]),
                {"s3:if-none-match": "true", "s3:ObjectCreationOperation": "true"},
            )
        ),
        *("bucket.tf", '"s3:if-none-match"', '"s3:if-match"'),
    ),
    "no function deletes a log entry": Promise(
        lambda found: (
            (one := _refusal(found, "LogIsKept"))[:4]
            == ("Deny", "*", ["s3:DeleteObject", "s3:DeleteObjectVersion"], ["reg/*/log/*"])
            and sorted(arn.rpartition("-")[2] for arn in one[4]["aws:PrincipalArn"]) == sorted(FUNCTIONS)
        ),
        *("bucket.tf", 'arn}/reg/*/log/*"]\n    principals', 'arn}/reg/*/ckpt/*"]\n    principals'),
    ),
    "the inboxes start the job, and nothing else starts anything": Promise(
        lambda found: (
            found["store"]["triggers"]
            == [
                (alias(found, "job"), ["s3:ObjectCreated:*"], [("prefix", f"{inbox}/")])
                for inbox in ("jobs", "uploads")
            ]
            and found["store"]["told too"] == []
        ),
        *("bucket.tf", '["s3:ObjectCreated:*"]', '["s3:ObjectCreated:Put"]'),
    ),
    "who predicts writes nothing; who trains deletes nothing, and tells the queue": Promise(
        lambda found: (
            {one for one in _rights(found, "predict") if one[0] not in ("s3:GetObject", "s3:ListBucket")} == set()
            and {one for one in _rights(found, "job") if one[0] not in ("s3:GetObject", "s3:ListBucket")}
            == {
                *(("s3:PutObject", f"reg/*/{part}/*") for part in ("log", "ckpt", "alias", "art")),
                *(("s3:PutObject", "reg/_models/*"), ("sqs:SendMessage", found["failures"]["queue"])),
            }
        ),
        *("roles.tf", "write  = []", 'write  = ["auth/*"]'),
    ),
}
