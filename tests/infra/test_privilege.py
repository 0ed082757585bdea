"""Each function of AWS may do what its code does, and nothing else: recorded calls against the roles' rights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote

import pytest

from core.collection import CHECKPOINTS_KEPT
from core.config import Settings
from core.ledger import CHECKPOINT_EVERY
from core.retraining import train_from_file
from core.spec import load_spec
from core.tokens import create_token
from core.worker import build_workshop
from tests.emulators import moto
from tests.emulators.missing import absent
from tests.emulators.moto import Put
from tests.infra import aws_plan
from tests.mood import SPEC, rows
from tests.runtimes.aws_notifications import notification

BUCKET = "polysky"
STORE = "arn:aws:s3:::polysky-prod-123456789012-eu-west-1"
# rights that the platform uses for a function, not its code: logs, traces, the queue of failed events
PLATFORM = {
    *("logs:CreateLogStream", "logs:PutLogEvents", "sqs:SendMessage"),
    *("xray:PutTraceSegments", "xray:PutTelemetryRecords"),
}
ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import json, sys
from handlers_aws import main
from tests.aws.recorded import Context
handler = getattr(main, sys.argv[1])
print("\\n" + json.dumps([handler(event, Context()) for event in json.loads(sys.stdin.read())]))
"""
Call = tuple[str, str]  # an action and the key it is for; an action and a pattern of keys is a right


class Recorder:
    """S3's emulator behind a list of who did what; `who` is the function that runs."""

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self._app, self._lock = app, threading.Lock()
        self.who = ""
        self.calls: dict[str, set[Call]] = {}

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Note a request and have it answered."""
        path, _, query = environ["REQUEST_URI"].partition("?")
        _, _, key = unquote(path).removeprefix("/").partition("/")
        with self._lock:
            self.calls.setdefault(self.who, set()).add((_action(environ["REQUEST_METHOD"], key, query), key))
            return [b"".join(self._app(environ, start_response))]


def _action(method: str, key: str, query: str) -> str:
    """Return the right that a request of S3 needs; of what we never do, the request itself."""
    told = parse_qs(query, keep_blank_values=True)
    if not key:
        return "s3:ListBucket" if method == "GET" and told.get("list-type") == ["2"] else f"{method} ?{query}"
    if method in ("GET", "HEAD"):
        return "s3:GetObjectVersion" if "versionId" in told else "s3:GetObject"
    return {"PUT": "s3:PutObject", "DELETE": "s3:DeleteObject"}.get(method, f"{method} ?{query}")


@contextmanager
def _emulator() -> Iterator[tuple[str, Recorder]]:
    try:
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import WSGIRequestHandler, make_server
    except ModuleNotFoundError as error:
        absent(f"moto's server ({error.name})")

    class Quiet(WSGIRequestHandler):
        """Writes no line a request."""

        def log(self, *_: Any) -> None:
            """Do nothing."""

    recorder = Recorder(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, recorder, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", recorder
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


class Site(NamedTuple):
    """A store with a model, and the functions that work on it."""

    endpoint: str
    recorder: Recorder
    store: Any
    shop: Any
    token: str

    def run(self, function: str, *events: Any) -> list[Any]:
        """Return what a function answers to events, in a process of its own, and record what it does meanwhile."""
        env = {
            **{"AWS_ENDPOINT_URL": self.endpoint, "AWS_REGION": moto.REGION, "AWS_DEFAULT_REGION": moto.REGION},
            **{"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_SESSION_TOKEN": "session"},
            **{"AWS_XRAY_SDK_ENABLED": "false", "POLYSKY_STORE": f"s3://{BUCKET}", "POLYSKY_ALLOW_HTTP": "true"},
            # a token is looked at again, and then its revocation too, at every request
            **{"POLYSKY_TOKEN_TTL_S": "0.001", "POLYSKY_MIN_UPLOAD_AGE_S": "0", "PATH": os.environ["PATH"]},
        }
        self.recorder.who = function
        entry = "http" if function == "predict" else function
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, entry],
            cwd=ROOT,
            env=env,
            input=json.dumps(events),
            capture_output=True,
            text=True,
            check=False,
        )
        self.recorder.who = ""
        assert done.returncode == 0, done.stderr
        answers: list[Any] = json.loads(done.stdout.splitlines()[-1])
        return answers

    def ask(self, function: str, *requests: tuple[str, str, Any]) -> list[Any]:
        """Return the bodies of a function's answers to requests, all of which succeed."""
        headers = {"authorization": f"Bearer {self.token}", "content-type": "application/json"}
        base = {"version": "2.0", "isBase64Encoded": False}
        events = [
            {**base, "rawPath": path, "requestContext": {"http": {"method": method}}}
            | {"headers": {**headers, "idempotency-key": f"once-{method}-{path.replace('/', '-')}"}}
            | ({} if body is None else {"body": json.dumps(body)})
            for method, path, body in requests
        ]
        answers = self.run(function, *events)
        assert [one["statusCode"] // 100 for one in answers] == [2] * len(answers), answers
        return [json.loads(one["body"]) for one in answers]

    def put(self, key: str, text: str) -> None:
        """Create an object as somebody else does."""
        self.store.put(key, text.encode())

    def told_of(self, key: str) -> Any:
        """Return S3's notification of an object."""
        entry = self.store.head(key)
        return notification(Put(BUCKET, key, entry.token, entry.size))

    def advance(self) -> None:
        """Move an alias until the next two entries of the log bring a checkpoint."""
        registry = self.shop.registry
        version = next(iter(registry.state("mood").versions))
        while registry.state("mood").head % CHECKPOINT_EVERY != CHECKPOINT_EVERY - 1:
            registry.move("mood", "spare", version, op_id=registry.new_id())


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A bucket with a model of two versions."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "mood.toml").write_text(SPEC)
    with _emulator() as (endpoint, recorder):
        where = {"LocationConstraint": moto.REGION}
        moto.session().client("s3", endpoint_url=endpoint).create_bucket(
            Bucket=BUCKET, CreateBucketConfiguration=where
        )
        store = moto.Moto(endpoint, moto.Gate(recorder)).open(f"s3://{BUCKET}")
        shop = build_workshop(Settings(), store, actor="test")
        for start in (0, 200):
            (folder / "data.csv").write_text(rows(start, 100))
            train_from_file(shop, load_spec(str(folder / "mood.toml")), str(folder / "data.csv"))
        token, _ = create_token(store, "admin", clock=time.time, random_bytes=os.urandom)
        yield Site(endpoint, recorder, store, shop, token)


@pytest.fixture(scope="module")
def calls(site: Site) -> dict[str, set[Call]]:
    """What each function did, of all that it can be asked."""
    site.ask(
        "predict", ("POST", "/predict/mood", {"text": "cake"}), ("GET", "/models", None), ("GET", "/health", None)
    )
    site.advance()
    site.put("uploads/mood/more.csv", rows(400, 60))
    first, second = list(site.shop.registry.state("mood").versions)[:2]
    accepted = site.ask(
        "control",
        ("POST", "/models/mood/rollback", {}),
        ("POST", "/models/mood/promote", {"version": second}),
        ("PUT", "/models/mood/aliases/mine", {"version": first}),
        ("GET", "/models/mood/versions", None),
        ("GET", "/models/mood/history", None),
        ("POST", "/train", {"model": "mood"}),
        ("POST", "/retrain/mood", {"rows": [{"text": "late", "label": "sad"}, {"text": "gift", "label": "glad"}]}),
    )
    jobs = [one["status_url"] for one in accepted[-2:]]
    again = ("POST", "/train", {"model": "mood"})  # with the same key: what it made before is looked at
    named = ("POST", "/retrain", {"model": "mood", "upload": "uploads/mood/more.csv"})
    site.ask("control", again, named, *(("GET", url, None) for url in jobs))
    site.advance()
    site.put("uploads/other/stray.csv", "text,label\n")
    inbox = [entry.key for prefix in ("jobs/", "uploads/") for entry in site.store.list(prefix)]
    site.run("job", *(site.told_of(key) for key in inbox))
    _age(site)
    site.put("uploads/mood/unseen.csv", rows(500, 60))
    site.put("jobs/mood/by-hand.json", site.store.get(next(e.key for e in site.store.list("jobs/"))).data.decode())
    site.run("tick", {"source": "polysky.tick"})
    return site.recorder.calls


def _age(site: Site) -> None:
    """Leave what a tick tidies up: bytes of an attempt that is over, and more checkpoints than are kept."""
    source = next(iter(site.shop.registry.state("mood").sources))
    site.put(f"reg/mood/art/{source[:12]}/0/{'0' * 64}", "dead")
    registry = site.shop.registry
    while sum(1 for _ in site.store.list("reg/mood/ckpt/")) <= CHECKPOINTS_KEPT:
        site.advance()
        registry.move("mood", "spare", next(iter(registry.state("mood").versions)), op_id=registry.new_id())
        registry.move("mood", "spare", next(iter(registry.state("mood").versions)), op_id=registry.new_id())
    site.advance()


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The facts of Terraform's stack, by run."""
    return aws_plan.planned(aws_plan.copied(tmp_path_factory.mktemp("terraform") / "stack"))


def ungranted(done: Iterable[Call], rights: Iterable[Call]) -> set[Call]:
    """Return the calls that no right allows."""
    return {call for call in done if not any(_allows(right, call) for right in rights)}


def unused(done: Iterable[Call], rights: Iterable[Call]) -> set[Call]:
    """Return the rights that no call needs."""
    return {right for right in rights if not any(_allows(right, call) for call in done)}


def _allows(right: Call, call: Call) -> bool:
    place = f"{STORE}/{call[1]}" if call[1] else STORE
    return right[0] == call[0] and fnmatchcase(place, right[1])


FUNCTIONS = ("predict", "control", "job", "tick")


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_may_do_all_it_does_and_nothing_else(
    calls: dict[str, set[Call]], plans: dict[str, Any], function: str
) -> None:
    rights = {right for right in plans["plain"]["grants"][function] if right[0] not in PLATFORM}
    assert ungranted(calls[function], rights) == set()
    assert unused(calls[function], rights) == set()


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_right_less_or_more_is_noticed(
    calls: dict[str, set[Call]], plans: dict[str, Any], function: str
) -> None:
    rights = {right for right in plans["plain"]["grants"][function] if right[0] not in PLATFORM}
    for right in rights:
        assert ungranted(calls[function], rights - {right}), f"{right} is needed twice"
    for more in (("s3:GetObject", f"{STORE}/backup/*"), ("s3:PutObjectAcl", f"{STORE}/reg/*")):
        assert unused(calls[function], {*rights, more}) == {more}


def test_who_predicts_writes_nothing(calls: dict[str, set[Call]], plans: dict[str, Any]) -> None:
    assert {action for action, _ in calls["predict"]} == {"s3:GetObject", "s3:ListBucket"}
    for plan in plans.values():
        actions = {action for action, _ in plan["grants"]["predict"]} - PLATFORM
        assert actions <= {"s3:GetObject", "s3:ListBucket", "secretsmanager:GetSecretValue"}


def test_no_right_has_a_wildcard_action_and_only_traces_any_place(plans: dict[str, Any]) -> None:
    for plan in plans.values():
        rights = [right for grants in plan["grants"].values() for right in grants]
        assert not any("*" in action for action, _ in rights)
        assert {action.partition(":")[0] for action, place in rights if place == "*"} == {"xray"}


def test_tokens_of_a_secret_replace_those_of_the_bucket(plans: dict[str, Any]) -> None:
    readers = {name: {place for _, place in grants} for name, grants in plans["options"]["grants"].items()}
    assert not any("/auth/" in place for places in readers.values() for place in places)
    asked = {name for name, places in readers.items() if any(":secret:" in place for place in places)}
    assert asked == {"predict", "control"}
