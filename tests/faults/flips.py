"""Damage at rest: an object of a registry, or an artifact, is changed; whoever reads it has to notice."""

from __future__ import annotations

import functools
import hashlib
import json
import random
import struct
from typing import Any

from core import artifact
from core.errors import IntegrityError
from core.flatfile import DIGEST, PAGE, FlatFile
from core.registry import Registry
from core.store import MemoryStore
from tests.core.ledgers import MODEL, train
from tests.core.models import text_artifact
from tests.faults.auditor import Violation
from tests.faults.histories import checkpoints_every

Objects = dict[str, bytes]


@functools.cache
def artifacts() -> tuple[bytes, bytes]:
    """Return two artifacts of one name."""
    return text_artifact(), text_artifact(ngrams=[1, 1])


@functools.cache
def shelf() -> Objects:
    """Return the objects of a registry with a log of some twenty entries, checkpoints and alias documents."""
    store = MemoryStore()
    with checkpoints_every(4):
        registry = open_registry(store)
        for name in "abcdef":
            version = train(registry, name)
            registry.move(MODEL, "production", version, op_id=f"{name}.move", reason="it is better")
        registry.retire(MODEL, registry.versions(MODEL)[-1].version, op_id="retire")
    return {entry.key: store.get(entry.key).data for entry in store.list("reg/")}


def open_registry(store: MemoryStore) -> Registry:
    """Return a registry whose clock stands still."""
    return Registry(store, clock=lambda: 0.0, sleep=lambda _: None, rng=random.Random(1), actor="w")


def flip(seed: int) -> None:
    """Damage something, drawn from the seed, and read it. Raises Violation if that goes unnoticed."""
    rng = random.Random(seed)
    rng.choice((damage_artifact, damage_log, damage_checkpoint, damage_document))(rng)


def damage_artifact(rng: random.Random) -> None:
    """An artifact that is not the promised one must not load."""
    sound, other = artifacts()
    drawn = rng.random()
    data = other if drawn < 0.05 else _forged(sound, rng) if drawn < 0.15 else _damaged(sound, rng)
    try:
        artifact.load(data, FlatFile(sound).header_sha256).file.verify_all()
    except IntegrityError:
        return
    raise Violation("a damaged artifact was loaded")


def damage_log(rng: random.Random) -> None:
    """An entry that has a successor cannot be changed: the log verifies no more, nobody folds it."""
    keys = sorted(key for key in shelf() if "/log/" in key)[:-1]
    key = rng.choice(keys)
    store = _store(key, _retold(shelf()[key], rng))
    if open_registry(store).verify_log(MODEL) != keys.index(key):
        raise Violation("a changed entry was not named")
    without = {name: body for name, body in _objects(store).items() if "/ckpt/" not in name}
    _same_or_broken(_filled(without))


def damage_checkpoint(rng: random.Random) -> None:
    """A checkpoint that the chain does not vouch for is not used."""
    key = rng.choice(sorted(key for key in shelf() if "/ckpt/" in key))
    body = _retold(shelf()[key], rng) if rng.random() < 0.5 else _damaged(shelf()[key], rng)
    _same_or_broken(_store(key, body))


def damage_document(rng: random.Random) -> None:
    """A damaged alias document is put right by a repair."""
    key = rng.choice(sorted(key for key in shelf() if key.endswith("/alias/production.json")))
    store = _store(key, _retold(shelf()[key], rng))
    open_registry(store).repair_aliases(MODEL)
    fresh = [json.loads(body) for body in (store.get(key).data, shelf()[key])]
    if [document["splits"] for document in fresh] != [fresh[1]["splits"]] * 2 or fresh[0]["rev"] != fresh[1][
        "rev"
    ]:
        raise Violation("a damaged document was left as it was")


def _same_or_broken(store: MemoryStore) -> None:
    truth = open_registry(_filled(shelf())).state(MODEL).to_json()
    try:
        found = open_registry(store).state(MODEL).to_json()
    except IntegrityError:
        return
    if json.dumps(found, sort_keys=True) != json.dumps(truth, sort_keys=True):
        raise Violation("a newcomer reads another story")


def _damaged(data: bytes, rng: random.Random) -> bytes:
    """Flip a bit, cut the end off, or add to it."""
    place, drawn = rng.randrange(len(data)), rng.random()
    if drawn < 0.1:
        return data[:place]
    if drawn < 0.2:
        return data + bytes([rng.randrange(256)])
    return _flipped(data, rng)


def _forged(data: bytes, rng: random.Random) -> bytes:
    """Flip a bit of a page, and write the page's digest anew."""
    header, pages = struct.unpack_from("<II", data, 8)
    table, page = 16 + header, rng.randrange(pages)
    low = (table + pages * DIGEST + PAGE - 1) // PAGE * PAGE + page * PAGE
    body = _flipped(data[low : low + PAGE], rng)
    digest = hashlib.sha256(body).digest()[:DIGEST]
    start = table + page * DIGEST
    return data[:start] + digest + data[start + DIGEST : low] + body + data[low + PAGE :]


def _flipped(data: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]


def _retold(body: bytes, rng: random.Random) -> bytes:
    """Change a digit or a letter of a JSON text, so that it is JSON still."""
    places = [n for n, byte in enumerate(body) if chr(byte) in "12345678abcde"]
    while True:
        place = rng.choice(places)
        changed = body[:place] + bytes([body[place] + 1]) + body[place + 1 :]
        if _parsed(changed) not in (None, _parsed(body)):
            return changed


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None


def _store(key: str, body: bytes) -> MemoryStore:
    return _filled({**shelf(), key: body})


def _filled(objects: Objects) -> MemoryStore:
    store = MemoryStore()
    for name, data in objects.items():
        store.put(name, data)
    return store


def _objects(store: MemoryStore) -> Objects:
    return {entry.key: store.get(entry.key).data for entry in store.list("reg/")}
