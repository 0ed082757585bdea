"""Tokens that are nearly right: none is taken, each is refused alike, and nothing tells how near it was."""

from __future__ import annotations

import ast
import inspect
import random
import statistics
import textwrap
import time
from typing import Any

from core.auth import ALPHABET, Verifier, check_of, record_key, revoked_key
from core.errors import Unauthorized
from core.store import MemoryStore
from core.tokens import create_token
from tests.core.house import Clock, entropy
from tests.faults.scoreboard import record
from tests.faults.sizes import size

TOKENS = size(3_000, 100_000)
TIMED = size(0, 100_000)
SEED = 64


class Door:
    """A verifier over a store in memory with three tokens; notes the keys that it reads."""

    def __init__(self) -> None:
        self.clock, self.store, self.read = Clock(), MemoryStore(), list[str]()
        draw = entropy(SEED)
        self.tokens = [
            create_token(self.store, role, clock=self.clock, random_bytes=draw)[0]
            for role in ("admin", "trainer", "predictor")
        ]
        self.verifier = Verifier(self, clock=self.clock)

    def get(self, key: str) -> bytes:
        self.read.append(key)
        return self.store.get(key).data

    def outcome(self, headers: dict[str, str]) -> str:
        """Return how these credentials fare: the role, `401`, or the name of what was raised."""
        self.clock.now += 1.0  # so that failures are no flood
        try:
            return self.verifier.authenticate(headers).role
        except Unauthorized:
            return "401"
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what the test looks for
            return type(error).__name__


def mutated(rng: random.Random, tokens: list[str]) -> str:
    """Return a token that is nearly one of `tokens`, half of the time with a checksum that fits."""
    good: str = rng.choice(tokens)
    bad: str
    at = rng.randrange(len(good))
    odd = rng.choice([*ALPHABET, "_", "-", "\0", " ", "\n", "\t", "é", "١", "\ud800", "\U0001f600", "=", "%"])
    kind = rng.randrange(8)
    if kind == 0:
        bad = good[:at] + odd + good[at + 1 :]
    elif kind == 1:
        bad = good[:at] + odd + good[at:]
    elif kind == 2:
        bad = good[:at]
    elif kind == 3:
        bad = good[:at] + good[at:].swapcase()
    elif kind == 4:
        bad = good + rng.choice([odd, good, "x" * 5000])
    elif kind == 5:
        parts = [rng.choice(tokens).split("_")[index] for index in range(4)]
        bad = "_".join(parts)
    elif kind == 6:
        secret: list[str] = list(good[21:64])
        secret[rng.randrange(43)] = rng.choice(ALPHABET)
        bad = good[:21] + "".join(secret) + good[64:]
    else:
        bad = good[:8] + "".join(rng.choices(ALPHABET, k=12)) + good[20:]
    if rng.random() < 0.5 and bad.isascii() and bad.count("_") >= 3:
        body = bad.rpartition("_")[0]
        bad = f"{body}_{check_of(body)}"
    return bad


def test_mutated_tokens_are_all_refused_as_unauthorized() -> None:
    started, rng, door, wrong = time.perf_counter(), random.Random(SEED), Door(), []
    for _ in range(TOKENS):
        token = mutated(rng, door.tokens)
        if token.strip(" ") in door.tokens:
            continue
        carried = {"x-api-key": token} if rng.random() < 0.3 else {"authorization": f"Bearer {token}"}
        found = door.outcome(carried)
        if found != "401":
            wrong.append((found, token))
    record("mutated tokens: accepted, or not 401", TOKENS, len(wrong), time.perf_counter() - started)
    assert wrong == [], f"seed {SEED}"
    assert [door.outcome({"x-api-key": token}) for token in door.tokens] == ["admin", "trainer", "predictor"]


def test_a_verifier_that_takes_a_near_token_would_be_noticed() -> None:
    door = Door()
    rng = random.Random(SEED)
    secrets = [token[:40] for token in door.tokens]  # one that compares the beginning only
    assert any(mutated(rng, door.tokens)[:40] in secrets for _ in range(100))


# -- nothing tells how near a token was


def test_a_record_is_looked_up_by_its_id_alone_whatever_the_secret() -> None:
    door = Door()
    good = door.tokens[0]
    kid = good.split("_")[1]
    for at in range(21, 64):
        body = good[:at] + ("A" if good[at] != "A" else "B") + good[at + 1 : 64]
        assert door.outcome({"x-api-key": f"{body}_{check_of(body)}"}) == "401"
    assert set(door.read) <= {record_key(kid), revoked_key(kid)}


def test_secrets_are_compared_as_digests_in_constant_time_and_in_no_other_way() -> None:
    tree = ast.parse(textwrap.dedent(inspect.getsource(Verifier.authenticate)))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    compared = [ast.unparse(call) for call in calls if ast.unparse(call.func) == "compare_digest"]
    assert compared == ["compare_digest(digest, expected)"]
    assert "digest = sha256(token.encode('ascii')).digest()" in ast.unparse(tree)
    secret = {"token", "digest", "expected", "parsed"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and not isinstance(node.ops[0], ast.Is | ast.IsNot):
            assert not (secret & {ast.unparse(part) for part in (node.left, *node.comparators)})


def test_the_time_to_refuse_is_recorded_by_the_first_byte_that_differs() -> None:
    """Only recorded: clocks of shared machines prove nothing."""
    door = Door()
    good = door.tokens[0]
    samples: dict[int, list[int]] = {21: [], 63: []}
    rng = random.Random(SEED)
    bodies = {at: good[:at] + ("A" if good[at] != "A" else "B") + good[at + 1 : 64] for at in samples}
    headers = {at: {"x-api-key": f"{body}_{check_of(body)}"} for at, body in bodies.items()}
    for _ in range(TIMED):
        at = rng.choice((21, 63))
        before = time.perf_counter_ns()
        found = door.outcome(headers[at])
        samples[at].append(time.perf_counter_ns() - before)
        assert found == "401"
    if TIMED:
        record(f"time by first differing byte: t = {welch(*samples.values()):.2f}", TIMED, 0, 0.0)


def welch(one: list[int], two: list[int]) -> float:
    """Return Welch's t of two samples, the slowest twentieth of each left out."""
    kept: list[Any] = [sorted(sample)[: len(sample) * 19 // 20] for sample in (one, two)]
    means, variances = [statistics.fmean(k) for k in kept], [statistics.variance(k) for k in kept]
    error = sum(variance / len(sample) for variance, sample in zip(variances, kept, strict=True)) ** 0.5
    return float((means[0] - means[1]) / error)


def test_the_statistic_tells_samples_apart() -> None:
    rng = random.Random(SEED)
    one = [rng.randrange(100) for _ in range(1000)]
    assert abs(welch(one, [value + 50 for value in one])) > 10
    assert welch(one, list(one)) == 0.0
