"""What an operator can do about what pip, terraform, or a cloud through it, refused."""

from __future__ import annotations

import re

# the first that fits; the words are those of the providers and of the clouds' APIs
_REMEDIES = (
    (
        r"no such host|connection refused|i/o timeout|could not connect to|Failed to query available provider",
        "check the network, its proxy, and the name of the region",
    ),
    (
        r"invalid AWS Region|supported Azure Locations|LocationNotAvailable|LocationNotFound|"
        r"Permission denied on 'locations/|is not a valid location|Invalid (value for )?region|Unknown region|"
        r"Invalid location|location constraint is not valid",
        "say a region that the cloud has, and that your account may use, by `--var region=…` (Azure: `location`)",
    ),
    (
        r"no valid credential|failed to refresh cached credentials|ExpiredToken|InvalidClientTokenId|"
        r"SignatureDoesNotMatch|InvalidAccessKeyId|UnrecognizedClient|could not find default credentials|"
        r"invalid_grant|reauth|AADSTS|unable to build authorizer|AzureCli Authorizer|not logged in|"
        r"failed to get shared config profile|No credentials loaded|ID was not provided",
        "log in again: `aws configure`, `gcloud auth application-default login` or `az login`",
    ),
    (
        r"BucketAlready|AlreadyExists|already exists|AlreadyTaken|AlreadyInUse|already own|NameNotAvailable|"
        r"Error 409|\b409 Conflict|ConflictException|needs to be imported",
        "something has that name, perhaps a deployment whose state lies elsewhere (`--state-dir`, `--backend`); "
        "else choose another by `--environment` or, for a bucket, `--var bucket=…`",
    ),
    (
        r"Access ?Denied|not authorized|AuthorizationFailed|Error 403|PERMISSION_DENIED|UnauthorizedOperation|"
        r"has not been used in project|SERVICE_DISABLED",
        "the account may not do this: ask its owner for the right, or for the service to be switched on",
    ),
    (
        r"Quota|LimitExceeded|TooManyRequests|UnreservedConcurrentExecution",
        "the account's limit is reached: have it raised, or ask for less by `--var`",
    ),
    (
        r"acquiring the state lock",
        "another run is at work; if it was killed, `terraform force-unlock ID` in folder `stack` frees the state",
    ),
    (r"Unsupported Terraform Core version", "install terraform 1.11 or newer"),
    (
        r"[Bb]ackend (configuration|initialization)",
        "say `--backend` with its `--backend-config`, as the first time",
    ),
)


def find_remedy(error: str) -> str:
    """Return what to do about an error's text, empty if nothing is known."""
    return next((remedy for sign, remedy in _REMEDIES if re.search(sign, error, re.IGNORECASE)), "")


_NO_WHEEL = re.compile(r"satisfies the requirement (\S+) \(from versions: ([^)]*)\)")


def explain_pip(told: str, platform: str = "") -> str:
    """Return in one line why pip installed nothing: no wheel for a platform, a wrong hash, no network."""
    head, _, rest = told.partition("\n")
    where = f" for {platform}" if platform else ""
    if (absent := _NO_WHEEL.search(rest)) is not None:
        others = "" if absent[2] == "none" else f" (it has {absent[2]})"
        return (
            f"the package index has no wheel of {absent[1]}{where}{others}: "
            "look at pip's index settings and the network, or build for another processor"
        )
    lines = [line.strip() for line in rest.splitlines() if not line.startswith("WARNING:")]
    return " ".join([head, *filter(None, lines)])
