"""CSV: what is read, and how each kind of bad file is refused."""

from __future__ import annotations

import contextlib
import csv
import gzip
import hashlib
import io
import math
import re
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.config import Settings
from core.dataset.cells import parse_number
from core.dataset.delimited import open_csv
from core.dataset.limits import Limits, buffered
from core.dataset.problems import MAX_BAD_ROWS, Problems
from core.dataset.reading import read_table
from core.errors import DataRejected, NotFound
from tests.core.datafiles import CATEGORY, NUMBER, TEXT, make_spec, read_bytes, real_files, rejection

MIXED = make_spec({"age": NUMBER, "town": CATEGORY, "note": TEXT})
NUMBERS = make_spec({"x": NUMBER})
TEXTS = make_spec({"text": TEXT})


def cells(data: bytes, limits: Limits = Limits()) -> list[list[str]]:  # noqa: B008
    """Return the rows of a CSV as it is read."""
    source = open_csv(buffered(io.BytesIO(data), limits.bytes), limits)
    return [list(row) for chunk in source.chunks for row in zip(*chunk.columns.values(), strict=True)]


def test_cells_become_typed_columns_in_any_column_order(tmp_path: Path) -> None:
    data = b'label,note,town,age\nyes,"a ""quoted"", text\nof two lines",Oslo,41.5\nno,,,\n'
    dataset = read_bytes(tmp_path, data, MIXED)
    assert dataset.n_rows == 2
    assert dataset.labels == ["yes", "no"]
    assert dataset.batch.columns["note"] == ['a "quoted", text\nof two lines', ""]
    assert dataset.batch.columns["town"] == ["Oslo", None]
    assert dataset.batch.columns["age"][0] == 41.5
    assert math.isnan(dataset.batch.columns["age"][1])


@pytest.mark.parametrize(
    "data",
    [
        b"x,label\n1,a\n2,b\n",
        b"x,label\n1,a\n2,b",
        b"x,label\r\n1,a\r\n2,b\r\n",
        b"\xef\xbb\xbfx,label\n1,a\n2,b\n",
        b"x,label\n1,a\n\n2,b\n\n",
        b' x , label\n" 1 ",a\n2\t,b\n',
        gzip.compress(b"x,label\n1,a\n2,b\n", mtime=0),
    ],
    ids=["plain", "no end", "crlf", "bom", "blank lines", "spaces", "gzip"],
)
def test_harmless_variants_read_alike(tmp_path: Path, data: bytes) -> None:
    dataset = read_bytes(tmp_path, data, make_spec({"x": NUMBER}))
    assert list(dataset.batch.columns["x"]) == [1.0, 2.0]


@pytest.mark.parametrize(
    ("data", "reason", "words"),
    [
        (b"", "truncated", "empty"),
        (b"\n\n", "truncated", "empty"),
        ("x,label\n1,a\n".encode("utf-16"), "encoding", "UTF-16"),
        ("x,label\n1,caf\xe9\n".encode("latin-1"), "encoding", "line 2 is not UTF-8 \\(byte 6"),
        (b"x,label\n1,a\n2,\0b\n", "encoding", "line 3 holds a NUL"),
        (b"x,label\r1,a\r2,b\r", "syntax", "line 1 holds a carriage return"),
        (b'x,label\n1,a\n"2,b\n3,c\n', "syntax", "line 3 never ends"),
        (b'x,label\n1,a\n"2,b\n3,c', "truncated", "line 3 never ends"),
        (b'x,label\n1,"a"b\n', "syntax", "line 2 has text after a closing quote"),
        (b'x,label\n1,"a\nb"\n2\n3,c\n', "syntax", "line 4 has 1 fields, the header 2"),
        (b"x,label\n1,a,b\n", "syntax", "line 2 has 3 fields"),
        (b"x,label\n1,a\n2", "truncated", "line 3 has 1 fields.*cut"),
        (b"x;label\n1;a\n", "syntax", "no comma"),
        (b"x\tlabel\n1\ta\n", "syntax", "no comma"),
        (b"x,,label\n1,2,a\n", "schema", "column 2 of the header has no name"),
        (b"x,label\n", "rows", "no rows"),
        (b'[{"x":1}]', "format", "JSON array"),
        (gzip.compress(b"x,label\n1,a\n" * 50, mtime=0)[:-9], "truncated", "compressed data is cut"),
        (gzip.compress(gzip.compress(b"x,label\n", mtime=0), mtime=0), "format", "gzip may hold"),
    ],
)  # fmt: skip
def test_a_bad_file_is_rejected_with_its_reason(tmp_path: Path, data: bytes, reason: str, words: str) -> None:
    error = rejection(tmp_path, data, NUMBERS)
    assert error.reason == reason
    assert re.search(words, error.message), error.message


@pytest.mark.parametrize(
    ("header", "field", "words"),
    [
        (b"y,label", "x", "missing"),
        (b"X Axis,label", "x_axis", "is it the one called X Axis"),
        (b"x,x,label", "x", "stands twice"),
        (b"x,label,label", "label", "stands twice"),
        (b"x", "label", "missing"),
        (b"x,label,more", "more", "not a column of the spec"),
    ],
)
def test_a_wrong_column_is_named(tmp_path: Path, header: bytes, field: str, words: str) -> None:
    name = "x_axis" if field == "x_axis" else "x"
    error = rejection(tmp_path, header + b"\n" + b",".join([b"1"] * (header.count(b",") + 1)) + b"\n",
                      make_spec({name: NUMBER}))  # fmt: skip
    assert error.reason == "schema"
    assert [p for p in error.problems if p.field == field and words in p.message], error.problems


def test_all_wrong_columns_are_named_at_once(tmp_path: Path) -> None:
    error = rejection(tmp_path, b"a,c,c,d\n1,2,3,4\n", make_spec({"a": NUMBER, "b": NUMBER, "c": NUMBER}))
    assert {problem.field for problem in error.problems} == {"b", "c", "d", "label"}
    assert error.fields["total"] == 4


def test_extra_columns_are_ignored_when_the_spec_says_so(tmp_path: Path) -> None:
    spec = make_spec({"x": NUMBER}, data={"extra": "ignore"})
    dataset = read_bytes(tmp_path, b"id,x,label\n7,1,a\n8,2,b\n", spec)
    assert list(dataset.batch.columns) == ["x"]


@pytest.mark.parametrize(
    "cell",
    ["nan", "NaN", "inf", "-inf", "Infinity", "1e400", "-1e999", "1_000", "1,5", "0x10", "٣", "１", " nan ", "abc",
     "1 2", "--1", "1e", ".", "+", "e5", "1.2.3", "\u00a01", "NA", "null", "1e5.5", "\u22121"],
)  # fmt: skip
def test_a_cell_that_is_no_number_is_a_problem_with_row_and_column(tmp_path: Path, cell: str) -> None:
    data = f'x,label\n1,a\n"{cell}",b\n2,b\n'.encode()
    error = rejection(tmp_path, data, NUMBERS)
    assert error.reason == "schema"
    assert [(problem.row, problem.field) for problem in error.problems] == [(2, "x")]
    assert "row 2, column x" in error.message


def test_an_empty_cell_is_missing_and_listed_words_too(tmp_path: Path) -> None:
    spec = make_spec({"x": NUMBER, "c": CATEGORY}, data={"missing": ["NA", "?"]})
    dataset = read_bytes(tmp_path, b"x,c,label\n,,a\nNA,?,b\n3,NA,a\n", spec)
    assert [math.isnan(value) for value in dataset.batch.columns["x"]] == [True, True, False]
    assert dataset.batch.columns["c"] == [None, None, None]


def test_every_bad_cell_is_counted_and_the_first_ten_are_shown(tmp_path: Path) -> None:
    rows = "".join(f"x{i},a\n" for i in range(5000))
    error = rejection(tmp_path, f"x,label\n{rows}".encode(), NUMBERS)
    assert error.fields["total"] == 5000
    assert [problem.row for problem in error.problems] == list(range(1, 11))
    assert "x0" not in error.message


def test_a_missing_label_is_a_problem(tmp_path: Path) -> None:
    error = rejection(tmp_path, b"x,label\n1,a\n2,\n3,b\n", NUMBERS)
    assert [(problem.row, problem.field, problem.message) for problem in error.problems] == [
        (2, "label", "is missing")
    ]


def test_a_regression_target_must_be_a_number(tmp_path: Path) -> None:
    spec = make_spec({"x": NUMBER}, task="regression", label="y")
    assert read_bytes(tmp_path, b"x,y\n1,2.5\n2,-1e3\n", spec).labels == [2.5, -1000.0]
    error = rejection(tmp_path, b"x,y\n1,\n2,high\n3,4\n", spec)
    assert [problem.row for problem in error.problems] == [1, 2]


def test_a_listed_category_is_enforced_in_training_and_not_in_prediction(tmp_path: Path) -> None:
    spec = make_spec({"c": {"kind": "category", "values": ["p", "q"]}})
    data = b"c,label\np,a\nz,b\n"
    assert rejection(tmp_path, data, spec).problems[0].row == 2
    assert read_bytes(tmp_path, data, spec, need_label=False).batch.columns["c"] == ["p", "z"]


def test_a_file_to_predict_needs_no_label_and_keeps_its_row_order(tmp_path: Path) -> None:
    for header in (b"x,label", b"x,other"):
        spec = make_spec({"x": NUMBER}, data={"extra": "ignore"})
        dataset = read_bytes(tmp_path, header + b"\n3,\n1,\n2,", spec, need_label=False)
        assert (list(dataset.batch.columns["x"]), dataset.labels) == ([3.0, 1.0, 2.0], None)


def test_a_file_to_predict_may_be_empty_and_its_bad_cells_are_named(tmp_path: Path) -> None:
    assert read_bytes(tmp_path, b"x\n", NUMBERS, need_label=False).n_rows == 0
    error = rejection(tmp_path, b"x\n1\ny\n", NUMBERS, need_label=False)
    assert (error.problems[0].row, error.problems[0].field) == (2, "x")


def test_a_share_of_bad_rows_may_be_set_aside(tmp_path: Path) -> None:
    spec = make_spec({"x": NUMBER}, data={"quarantine": 0.25})
    rows = [b"1,a", b"oops,b", b"3,a", b"4,b", b"5,a"]
    dataset = read_bytes(tmp_path, b"x,label\n" + b"\n".join(rows) + b"\n", spec)
    assert (dataset.n_rows, dataset.labels, dataset.n_quarantined) == (4, ["a", "a", "b", "a"], 1)
    assert dataset.quarantined[0].row == 2
    rows[3] = b"oops,b"
    assert rejection(tmp_path, b"x,label\n" + b"\n".join(rows) + b"\n", spec).fields["total"] == 2


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_a_cut_upload_is_rejected_as_truncated(tmp_path: Path, share: float) -> None:
    data = b"x,y,label\n" + b"".join(
        b"%d,%d,class %s\n" % (i, i * i, b"ab"[i % 2 : i % 2 + 1]) for i in range(500)
    )
    cut = int(len(data) * share)
    while data[cut - 1 : cut] == b"\n" or b"," not in data[data.rfind(b"\n", 0, cut) : cut]:
        cut += 1
    error = rejection(tmp_path, data[:cut], make_spec({"x": NUMBER, "y": NUMBER}))
    assert error.reason in {"truncated", "rows", "schema"}
    if share > 0.01:
        assert error.reason == "truncated"


def test_losing_only_the_last_line_end_loses_nothing(tmp_path: Path) -> None:
    assert read_bytes(tmp_path, b"x,label\n1,a\n2,b\n3,a", NUMBERS).n_rows == 3


def test_a_sha256_beside_the_file_is_held_against_it(tmp_path: Path) -> None:
    data = b"x,label\n1,a\n2,b\n"
    path = tmp_path / "data.csv"
    path.write_bytes(data)
    beside = tmp_path / "data.csv.sha256"
    beside.write_text(hashlib.sha256(data).hexdigest().upper() + "  data.csv\n")
    assert read_table(str(path), NUMBERS).n_rows == 2
    path.write_bytes(data[:-4])
    with pytest.raises(DataRejected, match="does not match the sha256"):
        read_table(str(path), NUMBERS)
    beside.write_text("no digest")
    with pytest.raises(DataRejected, match="holds no sha256"):
        read_table(str(path), NUMBERS)


@pytest.mark.parametrize(
    ("data", "limits", "words"),
    [
        (b"x,label\n" + b"1,a\n" * 11, Limits(rows=10), "number of rows is over the limit of 10"),
        (b"x,label\n" + b"1,a\n" * 11, Limits(bytes=20), "file is over the limit of 20 bytes"),
        (
            gzip.compress(b"x,label\n" + b"1,a\n" * 9999, mtime=0),
            Limits(bytes=500),
            "unpacked, is over the limit of 500",
        ),
        (b"x,label\n" + b"1" * 200 + b",a\n", Limits(field_bytes=100), "field that starts on line 2 is over"),
        (b"x,label\n" + b"1" * 200 + b",a\n", Limits(line_bytes=100), "line 2 is over"),
        (b"x,label,a,b\n1,a,2,3\n", Limits(columns=3), "fields on line 1 is over the limit of 3"),
        (b'"x","label","a","b"\n1,a,2,3\n', Limits(columns=3), "over the limit of 3"),
        (b'"x\ny",label,a,b\n1,a,2,3\n', Limits(columns=3), "number of columns (4) is over the limit of 3"),
        (b"x,label\n" + b"," * 400 + b"\n", Limits(columns=3, field_bytes=100), "fields on line 2 is over"),
    ],
)
def test_a_file_over_a_limit_names_the_limit(tmp_path: Path, data: bytes, limits: Limits, words: str) -> None:
    error = rejection(tmp_path, data, NUMBERS, limits=limits)
    assert error.reason == "too_large"
    assert words in error.message
    assert error.fields["limit"] in set(limits)


def test_limits_follow_the_settings() -> None:
    limits = Limits.of(Settings(max_data_bytes=5000, max_data_rows=70))
    assert (limits.bytes, limits.rows, limits.field_bytes) == (5000, 70, 1 << 20)


def test_bad_rows_are_remembered_up_to_a_cap_and_then_nothing_is_set_aside() -> None:
    problems = Problems()
    for row in range(MAX_BAD_ROWS):
        problems.add("is bad", "x", row)
    problems.add("is bad", "y", 5)
    assert problems.kept_all_rows
    problems.add("is bad", "x", MAX_BAD_ROWS)
    assert (problems.kept_all_rows, problems.total, len(problems.shown)) == (False, MAX_BAD_ROWS + 2, 10)


def test_an_absent_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="cannot read"):
        read_table(str(tmp_path / "no.csv"), NUMBERS)


def test_progress_counts_the_rows_done(tmp_path: Path) -> None:
    seen: list[int] = []
    read_bytes(tmp_path, b"x,label\n" + b"1,a\n" * 9000, NUMBERS, progress=seen.append)
    assert seen == [4096, 8192, 9000]


def test_repeated_categories_are_stored_once(tmp_path: Path) -> None:
    data = b"c,label\n" + b"a long category,some label\n" * 5000
    dataset = read_bytes(tmp_path, data, make_spec({"c": CATEGORY}))
    assert len({id(cell) for cell in dataset.batch.columns["c"]}) == 1
    assert dataset.labels is not None
    assert len({id(label) for label in dataset.labels}) == 1


def test_memory_stays_near_what_the_rows_need(tmp_path: Path) -> None:
    path = tmp_path / "big.csv"
    path.write_bytes(b"x,c,label\n" + b"3.14159265358979,some category,yes\n" * 200_000)
    tracemalloc.start()
    dataset = read_table(str(path), make_spec({"x": NUMBER, "c": CATEGORY}))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert dataset.n_rows == 200_000
    assert peak < 200_000 * 8 * 3 + 8_000_000  # one double and two pointers a row, and the chunk in hand


@given(st.text())
@settings(max_examples=300)
def test_the_number_grammar_is_floats_own_less_its_surprises(text: str) -> None:
    try:
        number = parse_number(text)
    except ValueError:
        return
    assert number == float(text)
    assert math.isfinite(number)
    assert set(text) <= set("0123456789+-.eE \t")


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_finite_float_survives_its_text(number: float) -> None:
    assert parse_number(repr(number)) == number
    assert parse_number(f" {number:.17g} ") == number


ROW = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0")), min_size=3, max_size=3)


@given(st.lists(ROW, max_size=20), st.sampled_from(["\n", "\r\n"]))
def test_what_the_csv_module_writes_is_read_back(rows: list[list[str]], end: str) -> None:
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerows([["a", "b", "c"], *rows])
    assert cells(sink.getvalue().encode()) == rows


@given(st.binary(max_size=300))
@settings(max_examples=500)
def test_any_bytes_are_read_or_rejected_and_never_crash(data: bytes) -> None:
    limits = Limits(rows=10, field_bytes=64, line_bytes=128)
    with contextlib.suppress(DataRejected):
        assert all(len(row) == 2 for row in cells(b"a,b\n" + data, limits))


TABLES = {
    "sms_spam": (3199, TEXTS),
    "movie_sentences": (6610, TEXTS),
    "movie_reviews_long": (1200, TEXTS),
    "ag_news": (4560, TEXTS),
    "bbc_news": (1274, TEXTS),
    "banking77": (8992, TEXTS),
    "trec_questions": (3865, TEXTS),
    "newsgroups_mini": (1194, TEXTS),
    "consumer_complaints": (1197, TEXTS),
}


@pytest.mark.parametrize("path", [Path("generated"), *real_files(*TABLES)], ids=lambda path: path.parent.name)
def test_text_sets_have_the_rows_that_the_csv_module_sees(path: Path, tmp_path: Path) -> None:
    expected, spec = TABLES.get(path.parent.name, (2, TEXTS))
    if path.name == "generated":
        path = tmp_path / "data.csv"
        path.write_text('text,label\n"two\nlines",a\nplain,b\n')
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    rows = list(csv.DictReader(io.StringIO(raw.decode(), newline="")))
    dataset = read_table(str(path), spec)
    assert dataset.n_rows == expected == len(rows)
    assert dataset.batch.columns["text"] == [row["text"] for row in rows]
    assert dataset.labels == [row["label"] for row in rows]
