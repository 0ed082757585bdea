"""Hand-written bugs of the protocol, each one a plausible slip, in ledger, fold, registry, jobs and artifacts."""

from __future__ import annotations

from tests.faults.patching import Mutant

LEDGER = (
    Mutant("op ids are not looked up", "core.ledger", "n = self._state.seen(op_id)\n", "n = None\n"),
    Mutant(
        "another's entry is taken for one's own",
        "core.ledger",
        'return entry if entry["op_id"] == op_id else None',
        "return entry",
    ),
    Mutant(
        "silence is taken for success",
        "core.ledger",
        "        if entry is None:\n            raise _unknown(op_id)",
        "        if entry is None:\n            return parse_entry(body)",
    ),
    Mutant(
        "a write without an answer is taken for done",
        "core.ledger",
        "            except Transient:\n                self._backoff.pause(attempt)\n            except Denied",
        "            except Transient:\n                return True\n            except Denied",
    ),
    Mutant(
        "a slot that is taken is taken for won",
        "core.ledger",
        "            except Exists:\n                return False\n            except Transient",
        "            except Exists:\n                return True\n            except Transient",
    ),
    Mutant(
        "slots are overwritten",
        "core.ledger",
        "self._store.put_if_absent(key, body)",
        "self._store.put(key, body)",
    ),
    Mutant(
        "a failing read is taken for the end of the log",
        "core.ledger",
        "        except Missing:\n            return None\n\n    def _take",
        "        except (Missing, Transient):\n            return None\n\n    def _take",
    ),
    Mutant(
        "an unknown outcome is told as nothing done",
        "core.ledger",
        "        except CoreError as error:\n            raise _unknown(op_id) from error",
        "        except CoreError as error:\n            raise Transient(op_id) from error",
    ),
    Mutant("entries are not checked", "core.ledger", "        check(state, parse_entry(body))\n", ""),
    Mutant(
        "a checkpoint is believed unseen",
        "core.ledger",
        'if entry["ckpt"] != digest_of(saved) or (',
        "if (",
    ),
    Mutant(
        "a checkpoint is believed without the entry that vouches",
        "core.ledger",
        "                return None\n            entry, body = parse_entry(following), json.loads(saved)\n",
        '                return State.from_json(self._model, n, "0" * 64, json.loads(saved or b"")["state"])\n'
        "            entry, body = parse_entry(following), json.loads(saved)\n",
    ),
    Mutant(
        "the log is not read to its end",
        "core.ledger",
        "        while (body := self._read(log_key(self._model, self._state.head + 1))) is not None:",
        "        if (body := self._read(log_key(self._model, self._state.head + 1))) is not None:",
    ),
    Mutant(
        "an operation is told from what was asked, not from what was written",
        "core.ledger",
        "                    return self.entry(n)\n",
        "                    return dict(make_entry(self._state))\n",
    ),
)

STATE = (
    Mutant(
        "a checkpoint counts parts of retired versions",
        "core.state",
        "            if version.retired is None:\n                state.count_parts",
        "            if version:\n                state.count_parts",
    ),
    Mutant(
        "a checkpoint forgets who waits for a verdict",
        "core.state",
        "return claimed | {version.src for name, version in waiting.items() if name not in moved}",
        "return claimed",
    ),
    Mutant(
        "a checkpoint forgets the op ids of its last entry",
        "core.state",
        "for n in range(head + 1)}",
        "for n in range(head)}",
    ),
    Mutant(
        "a snapshot shares its aliases",
        "core.state",
        "copy.aliases, copy.moves = self.aliases.copy(), self.moves.copy()",
        "copy.aliases, copy.moves = self.aliases, self.moves",
    ),
)

FOLD = (
    Mutant(
        "no fencing", "core.fold", "type(attempt) is int and attempt == source.attempt", "type(attempt) is int"
    ),
    Mutant(
        "a source has two outcomes",
        "core.fold",
        '        _rule(source.status == "claimed", "done", "the source has its outcome")\n        _rule(type',
        "        _rule(type",
    ),
    Mutant(
        "finished sources are claimed again",
        "core.fold",
        'source is None or source.status == "claimed"',
        "source is None or source.status",
    ),
    Mutant(
        "any attempt may be claimed",
        "core.fold",
        "type(attempt) is int and attempt == latest + 1",
        "type(attempt) is int and attempt >= latest",
    ),
    Mutant(
        "covered sources are not fenced",
        "core.fold",
        "    for src, attempt in _targets(entry):\n        source = state.sources.get(src)\n        if",
        "    for src, attempt in _targets(entry)[:1]:\n        source = state.sources.get(src)\n        if",
    ),
    Mutant(
        "covered sources get no outcome",
        "core.fold",
        "        for src, attempt in _targets(entry):\n            source = state.sources.get(src) or",
        "        for src, attempt in _targets(entry)[:1]:\n            source = state.sources.get(src) or",
    ),
    Mutant(
        "covered sources are not claimed",
        "core.fold",
        "    for src, attempt, key in _claims(entry):\n        tail",
        "    for src, attempt, key in [*_claims(entry)][:1]:\n        tail",
    ),
    Mutant(
        "a version may be published again",
        "core.fold",
        '    _rule(version not in state.versions, "exists", "the version is already published")\n',
        "",
    ),
    Mutant(
        "parts of nobody may be published",
        "core.fold",
        'part["key"].startswith(own) or part["key"] in state.live_parts',
        'isinstance(part["key"], str)',
    ),
    Mutant(
        "a retired version still keeps its parts",
        "core.fold",
        "    state.count_parts(version.parts, -1)\n",
        "",
    ),
    Mutant(
        "a version may be retired twice",
        "core.fold",
        '_rule(_is_live(state, entry["version"]), "version", "no such version, or already retired")',
        '_rule(entry["version"] in state.versions, "version", "no such version")',
    ),
    Mutant(
        "a version in use may be retired",
        "core.fold",
        "    if held:\n",
        '    if "production" in held:\n',
    ),
    Mutant(
        "moves are made from old revisions",
        "core.fold",
        'if entry["expect_rev"] != rev:',
        'if entry["expect_rev"] > rev:',
    ),
    Mutant(
        "aliases point to retired versions",
        "core.fold",
        '_rule(_is_live(state, split["version"]), "version", "no such version, or retired")',
        '_rule(split["version"] in state.versions, "version", "no such version")',
    ),
    Mutant(
        "previous may be moved",
        "core.fold",
        '    _rule(name != PREVIOUS, "previous", "previous follows production and cannot be moved")\n',
        "",
    ),
    Mutant(
        "weights may be nothing",
        "core.fold",
        '_rule(split["weight"] > 0,',
        '_rule(split["weight"] >= 0,',
    ),
    Mutant(
        "previous follows moves that change nothing",
        "core.fold",
        'entry["name"] == PRODUCTION and former and former.splits != splits',
        'entry["name"] == PRODUCTION and former',
    ),
    Mutant(
        "previous points to the new version",
        "core.fold",
        "_point(state, PREVIOUS, former.splits, entry)",
        "_point(state, PREVIOUS, splits, entry)",
    ),
    Mutant("a revision stands still", "core.fold", "Alias(rev + 1, splits", "Alias(max(rev, 1), splits"),
    Mutant(
        "a stalled attempt gives up another's lease",
        "core.fold",
        '"until": (int, float)})\n        _check_outcome(state, entry)\n',
        '"until": (int, float)})\n',
    ),
    Mutant(
        "the chain is not checked",
        "core.fold",
        'entry["n"] == state.head + 1 and entry["prev"] == state.hash',
        'entry["n"] == state.head + 1',
    ),
)

REGISTRY = (
    Mutant(
        "the store's silence after a commit hides it",
        "core.registry",
        "entry = _expect(self.ledger(model).append(make, op_id), same)\n        state = self.ledger(model).known()"
        "  # a store that fails now must not hide that the change is made\n        for name",
        "entry = _expect(self.ledger(model).append(make, op_id), same)\n        state = self.state(model)\n"
        "        for name",
    ),
    Mutant(
        "roll back to where production is",
        "core.registry",
        "list(state.aliases[PREVIOUS].splits)",
        "list(state.aliases[PRODUCTION].splits)",
    ),
    Mutant(
        "a move told with the newest revision",
        "core.registry",
        'return Alias(entry["expect_rev"] + 1, splits_of',
        'return Alias(state.aliases[entry["name"]].rev, splits_of',
    ),
    Mutant(
        "bytes are not read back",
        "core.registry",
        "if digest_of(self._artifact(key)) == sha256:",
        "if digest_of(data) == sha256:",
    ),
    Mutant(
        "documents of retired versions stay",
        "core.registry",
        "            if version.retired is not None:\n                self._docs.write(state, name)",
        "            if version.retired is None:\n                self._docs.write(state, name)",
    ),
    Mutant(
        "alias documents go back",
        "core.alias_docs",
        'if present and (found is None or found["rev"] >= fresh["rev"]):',
        "if present and found is None:",
    ),
    Mutant(
        "alias documents are swapped blindly",
        "core.alias_docs",
        "self._store.put_if_match(key, body, present.token)",
        "self._store.put(key, body)",
    ),
    Mutant(
        "a repair reads the state before the document",
        "core.alias_docs",
        "            present = self._read(model, ref)\n            fresh = _document(refresh(), ref)\n",
        "            fresh = _document(refresh(), ref)\n            present = self._read(model, ref)\n",
    ),
    Mutant(
        "needed parts are collected",
        "core.collection",
        '(version.artifact_key, *(part["key"] for part in version.parts))',
        '(version.artifact_key, *(part["key"] for part in version.parts[:1]))',
    ),
    Mutant(
        "bytes of attempts yet unknown are collected",
        "core.collection",
        'return attempt < source.attempt or source.status != "claimed"',
        "return True",
    ),
    Mutant(
        "bytes of the attempt at work are collected",
        "core.collection",
        'return source.status in ("rejected", "parked")',
        'return source.status in ("rejected", "parked", "claimed")',
    ),
    Mutant(
        "bytes of dead attempts are kept",
        "core.collection",
        'return attempt < source.attempt or source.status != "claimed"',
        "return False",
    ),
)

JOBS = (
    Mutant(
        "a claim is taken for all that was asked",
        "core.jobs",
        "tuple(item for item in items if item.src in held)",
        "tuple(item for item in items if held)",
    ),
    Mutant("claims share an op id", "core.jobs", ".claim.{registry.new_id()}", ".claim"),
    Mutant(
        "leases do not count", "core.jobs", "    if source.until > now:\n", "    if source.until > now + 1e12:\n"
    ),
    Mutant(
        "what is published is not judged",
        "core.jobs",
        'return Step("gate", source.attempt)',
        'return Step("done", source.attempt)',
    ),
    Mutant(
        "a new upload under an old name is the old one",
        "core.jobs",
        'f"{key}\\n{token}"',
        'f"{key}\\n{token and str()}"',
    ),
    Mutant(
        "covered sources are not told",
        "core.jobs",
        '        entry["covers"] = {item.src: item.attempt for item in others}',
        '        entry["covers"] = {}',
    ),
    Mutant(
        "a run forgets what it covers",
        "core.jobs",
        "return {item.src: item.attempt for item in self.items[1:]}",
        "return {item.src: item.attempt for item in self.items[2:]}",
    ),
)

ARTIFACT = (
    Mutant(
        "an artifact need not be the promised one",
        "core.flatfile",
        "header_sha256 is not None and header_sha256 != self.header_sha256",
        "header_sha256 is not None and not self.header_sha256",
    ),
    Mutant(
        "page digests are not pinned",
        "core.flatfile",
        'if self.header.get("digests_sha256") != hashlib.sha256(digests).hexdigest():',
        'if not self.header.get("digests_sha256"):',
    ),
    Mutant(
        "pages are not checked",
        "core.flatfile",
        "if digest != self._digests[page * DIGEST",
        "if not self._digests[page * DIGEST",
    ),
    Mutant(
        "the last page is not checked",
        "core.flatfile",
        "(stop + PAGE - 1) >> PAGE_BITS):\n            if not seen",
        "stop >> PAGE_BITS):\n            if not seen",
    ),
    Mutant(
        "bytes that nothing vouches for pass",
        "core.flatfile",
        'if bytes(view[end:data]).strip(b"\\0"):',
        "if data < end:",
    ),
)

MUTANTS = (*LEDGER, *STATE, *FOLD, *REGISTRY, *JOBS, *ARTIFACT)
