"""Text → weighted terms: TF-IDF, counts or presence of word or character n-grams, or hashed.

Weights follow scikit-learn's TfidfTransformer: tf (or 1 + log tf) × idf, rows scaled to length 1.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from core import vocabulary
from core.errors import DataRejected, FitFailed
from core.fused import Fused, FusedPairs
from core.kinds import Csr, Pairs, RowReader, fuse_pairs
from core.sparse import entry_lengths, merged
from core.terms import analyzer

if TYPE_CHECKING:
    from core.flatfile import FlatFile
    from core.kinds import Sections
    from core.schema import Batch, Column

_MEMO_TERMS = 1 << 17  # of term → index kept by one block
DEFAULTS: dict[str, Any] = {
    "weighting": "tfidf",
    "sublinear_tf": False,
    "norm": "l2",
    "min_df": 1,
    "max_df": 1.0,
    "max_features": 0,
    "hashing": 0,
    "alternate_sign": True,
}


Find = Callable[[str], tuple[int, float]]


class TextBlock:
    """The terms of one text column.

    `_find` maps a term to its code and idf: the code is its index (hashed: + width for a negative sign), -1 if
    the term is unknown.
    """

    def __init__(self, column: str, options: Mapping[str, Any], width: int) -> None:
        self.columns: tuple[str, ...] = (column,)
        self.width = width
        self.options = {**DEFAULTS, **options}
        self._column = column
        self.analyzer = analyzer(self.options)
        self._hashed = bool(self.options["hashing"])
        self._find: Find = lambda term: vocabulary.UNKNOWN
        self._find_all: Callable[[Sequence[str]], list[int]] = self._find_each
        self._idf_vector: Callable[[], Any] = lambda: None
        self._terms: Callable[[], list[str]] = list
        self._sections: Sections = {}
        self._known: dict[str, int] = {}

    def params(self) -> dict[str, Any]:
        """Return the options and the width."""
        return {"options": self.options, "width": self.width, "idf": self._idf_vector() is not None}

    def sections(self) -> Sections:
        """Return `slots` and `keys` of the vocabulary; of hashed terms only `idf`, if weighted so."""
        return self._sections

    def names(self) -> list[str]:
        """Return the terms by index; hashed features have none of their own."""
        if self._hashed:
            return [f"{self._column}:#{index}" for index in range(self.width)]
        return [f"{self._column}:{term}" for term in self._terms()]

    def vocabulary(self) -> list[str]:
        """Return the terms by index."""
        return self._terms()

    def analyze(self, text: str) -> list[str]:
        """Return the terms of a text, with repeats."""
        groups = self.analyzer.groups(text)
        return groups[0] if len(groups) == 1 else [term for group in groups for term in group]

    def row(self, values: Mapping[str, Any]) -> Pairs:
        """Return the weighted terms of one text, without numpy."""
        counts: dict[int, float] = {}
        weights: dict[int, float] = {}
        for term, count in Counter(self.analyze(values[self._column])).items():
            code, idf = self._find(term)
            if code != -1:
                index, signed = self._signed(code, count)
                counts[index] = counts.get(index, 0.0) + signed
                weights[index] = idf
        pairs = [(index, self.tf(count) * weights[index]) for index, count in sorted(counts.items())]
        if self.options["norm"] == "none":
            return pairs
        length = math.sqrt(math.fsum(value * value for _, value in pairs))
        return [(index, value / length) for index, value in pairs] if length else pairs

    def _signed(self, index: int, count: int) -> tuple[int, float]:
        """Return the index and the count with its sign; a hashed term's sign bit lies above the width."""
        if index >= self.width:
            return index - self.width, -float(count)
        return index, float(count)

    def tf(self, count: float) -> float:
        """Return the weight of a term that stands `count` times, before idf."""
        if self.options["weighting"] == "binary":
            return 1.0 if count else 0.0
        if self.options["sublinear_tf"] and count:
            return 1.0 + math.log(count) if count > 0 else count
        return count

    def fuse(self, weights: RowReader, n_out: int) -> Callable[[Mapping[str, Any]], list[float]]:
        """Return the function of one row to its share of the scores, with a bounded memo term → idf × w row."""
        if self._hashed:  # two terms may share an index: their counts add before they are weighted
            return fuse_pairs(self.row, weights, n_out)
        fused = FusedPairs if self.analyzer.words and self.analyzer.span == (1, 2) else Fused
        return fused(self, weights, n_out).share

    def fused_row(self, term: str, weights: RowReader) -> tuple[float, ...]:
        """Return (idf², idf × w…) of a term, or () if it is unknown."""
        index, idf = self._find(term)
        if index < 0:
            return ()
        return (idf * idf, *(idf * weight for weight in weights(index)))

    def matrix(self, batch: Batch) -> Csr:
        """Return the weighted terms of all texts."""
        import numpy as np

        terms: list[str] = []
        lengths = []
        for text in batch.columns[self._column]:
            before = len(terms)
            for group in self.analyzer.groups(text):
                terms += group
            lengths.append(len(terms) - before)
        codes = self._codes(terms)
        rows = np.repeat(np.arange(batch.n_rows), lengths)[codes >= 0]
        return self._weighted(*self._counted(rows, codes[codes >= 0], batch.n_rows))

    def _codes(self, terms: list[str]) -> Any:
        """Return the code of each term, int64 of shape (n_terms,)."""
        import numpy as np

        known = self._known
        try:
            return np.array(list(map(known.__getitem__, terms)), np.int64)
        except KeyError:
            if len(known) > _MEMO_TERMS:
                known.clear()
            new = list({term for term in terms if term not in known})
            known.update(zip(new, self._find_all(new), strict=True))
        return np.array(list(map(known.__getitem__, terms)), np.int64)

    def _find_each(self, terms: Sequence[str]) -> list[int]:
        return [self._find(term)[0] for term in terms]

    def _counted(self, rows: Any, codes: Any, n_rows: int) -> tuple[Any, Any, Any]:
        """Return (indptr, indices, signed counts) of the terms that stand at `rows` with `codes`."""
        import numpy as np

        span = 2 * self.width
        cells, counts = np.unique(rows * span + codes, return_counts=True)
        rows, codes, data = cells // span, cells % span, counts.astype(np.float64)
        indptr = np.searchsorted(rows, np.arange(n_rows + 1))
        if not self._hashed:
            return indptr, codes, data
        data[codes >= self.width] *= -1.0
        return merged(indptr, codes % self.width, data)

    def _weighted(self, indptr: Any, indices: Any, data: Any) -> Csr:
        import numpy as np

        if self.options["weighting"] == "binary":
            data = (data != 0).astype(np.float64)
        elif self.options["sublinear_tf"]:
            positive = data > 0
            data[positive] = 1.0 + np.log(data[positive])
        idf = self._idf_vector()
        if idf is not None:
            data = data * idf[indices]
        if self.options["norm"] == "l2":
            data = data / entry_lengths(indptr, data)
        return Csr(indptr, indices.astype(np.int32), data, self.width)


def fit(columns: Sequence[Column], batch: Batch) -> TextBlock:
    """Return the block fitted on one text column. Raises DataRejected if no term is left."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    from core.extras import require

    (column,) = columns
    options = {**DEFAULTS, **column.options}
    if options.get("normalize") == "lemma":
        require("simplemma", "lemma", "lemmatising")
    if options["hashing"]:
        return _fit_hashed(column, options, batch)
    block = TextBlock(column.name, options, 0)
    vectorizer = TfidfVectorizer(
        analyzer=block.analyze,
        min_df=options["min_df"],
        max_df=options["max_df"],
        max_features=options["max_features"] or None,
        use_idf=options["weighting"] == "tfidf",
    )
    try:
        vectorizer.fit(batch.columns[column.name])
    except ValueError as error:
        raise DataRejected("no_terms", f"column {column.name} yields no terms with these options") from error
    idf = vectorizer.idf_ if options["weighting"] == "tfidf" else None
    return _from_terms(column.name, options, vectorizer.vocabulary_, idf)


def _from_terms(column: str, options: Mapping[str, Any], index_of: Mapping[str, int], idf: Any) -> TextBlock:
    import numpy as np

    terms: list[str] = sorted(index_of, key=lambda term: index_of[term])
    block = TextBlock(column, options, len(terms))
    weights = np.ones(len(terms)) if idf is None else np.asarray(idf, np.float64)
    found = {
        term: (index, weight) for index, (term, weight) in enumerate(zip(terms, weights.tolist(), strict=True))
    }
    block._sections = vocabulary.sections(terms, weights.tolist())
    block._find = lambda term: found.get(term, vocabulary.UNKNOWN)
    block._terms = lambda: terms
    if idf is not None:
        block._idf_vector = lambda: weights
    return block


def _fit_hashed(column: Column, options: Mapping[str, Any], batch: Batch) -> TextBlock:
    """Return a hashing block; with TF-IDF weights its idf is learnt as TfidfTransformer does (smooth)."""
    import numpy as np

    block = TextBlock(column.name, options, int(options["hashing"]))
    block._find = _hash_finder(block.width, bool(options["alternate_sign"]), None)
    if options["weighting"] == "tfidf":
        plain = TextBlock(column.name, {**options, "norm": "none", "weighting": "counts"}, block.width)
        plain._find = block._find
        x = plain.matrix(batch)
        documents = np.bincount(x.indices[x.data != 0], minlength=block.width)
        weights = np.log((1 + batch.n_rows) / (1 + documents)) + 1.0
        block._sections = {"idf": weights}
        block._idf_vector = lambda: weights
        block._find = _hash_finder(
            block.width, bool(options["alternate_sign"]), lambda index: (float(weights[index]),)
        )
    return block


def _hash_finder(width: int, alternate_sign: bool, idf: RowReader | None) -> Find:
    """Return term → (code, idf): MurmurHash3 and the sign as scikit-learn's HashingVectorizer has them."""
    import mmh3

    def find(term: str) -> tuple[int, float]:
        value = mmh3.hash(vocabulary.encode(term), 0, signed=True)
        index = abs(value) % width
        weight = 1.0 if idf is None else idf(index)[0]
        return (index + width if alternate_sign and value < 0 else index), weight

    return find


def load(columns: Sequence[Column], params: Mapping[str, Any], file: FlatFile, prefix: str) -> TextBlock:
    """Return the block whose vocabulary and idf stand in `file` under `prefix`."""
    (column,) = columns
    block = TextBlock(column.name, params["options"], params["width"])
    if block.options["hashing"]:
        idf = file.rows(prefix + "idf") if params["idf"] else None
        block._find = _hash_finder(block.width, bool(block.options["alternate_sign"]), idf)
        if params["idf"]:
            block._idf_vector = lambda: file.array(prefix + "idf")
        return block
    block._find = vocabulary.finder(file, prefix)
    block._find_all = partial(vocabulary.find_all, file, prefix)
    block._terms = lambda: vocabulary.terms(file, prefix)
    if params["idf"]:
        block._idf_vector = cache(partial(vocabulary.weights, file, prefix))
    return block


def reference(block: TextBlock) -> Any:
    """Return scikit-learn's own transformer with this block's terms and weights: Batch → x."""
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfTransformer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    o, column = block.options, block.columns[0]
    if o["hashing"]:
        sign = bool(o["alternate_sign"])
        count = HashingVectorizer(analyzer=block.analyze, n_features=block.width, norm=None, alternate_sign=sign)
    else:
        count = CountVectorizer(analyzer=block.analyze, vocabulary=block.vocabulary())
    binary = FunctionTransformer(_presence if o["weighting"] == "binary" else None, accept_sparse=True)
    idf, norm = block._idf_vector(), None if o["norm"] == "none" else o["norm"]
    weigh = TfidfTransformer(norm=norm, use_idf=idf is not None, sublinear_tf=bool(o["sublinear_tf"]))
    weigh.fit(csr_matrix((1, block.width)))
    if idf is not None:
        weigh.idf_ = idf
    texts = FunctionTransformer(lambda batch: batch.columns[column])
    return make_pipeline(texts, count, binary, weigh)


def _presence(x: Any) -> Any:
    return (x != 0).astype(float)


def from_vectorizer(column: str, vectorizer: Any) -> TextBlock:
    """Return the block equal to a fitted TfidfVectorizer, CountVectorizer or HashingVectorizer.

    Raises FitFailed naming the setting that cannot be carried.
    """
    name = type(vectorizer).__name__
    if name not in ("TfidfVectorizer", "CountVectorizer", "HashingVectorizer"):
        raise FitFailed(f"{name} is not a text vectorizer that can be carried")
    options = _options_of(vectorizer, name)
    if name == "HashingVectorizer":
        block = TextBlock(column, {**options, "hashing": vectorizer.n_features}, vectorizer.n_features)
        block._find = _hash_finder(block.width, bool(vectorizer.alternate_sign), None)
        return block
    idf = vectorizer.idf_ if name == "TfidfVectorizer" and vectorizer.use_idf else None
    return _from_terms(column, options, vectorizer.vocabulary_, idf)


def _options_of(vectorizer: Any, name: str) -> dict[str, Any]:
    """Return the options that give the vectorizer's terms. Raises FitFailed for what has no equivalent."""
    for setting in ("preprocessor", "tokenizer"):
        if getattr(vectorizer, setting) is not None:
            raise FitFailed(f"{name}.{setting} is a Python function and cannot be carried")
    if vectorizer.analyzer not in ("word", "char", "char_wb") or vectorizer.strip_accents == "ascii":
        raise FitFailed(f"{name} with this analyzer or strip_accents=ascii cannot be carried")
    if vectorizer.input != "content":
        raise FitFailed(f"{name}.input must be content")
    tfidf = name == "TfidfVectorizer"
    if tfidf and vectorizer.binary and vectorizer.use_idf:
        raise FitFailed(f"{name} with binary=True and use_idf=True cannot be carried")
    norm = vectorizer.norm if hasattr(vectorizer, "norm") else None
    if norm not in (None, "l2"):
        raise FitFailed(f"{name}.norm must be l2 or None")
    return {
        "analyzer": vectorizer.analyzer,
        "ngrams": list(vectorizer.ngram_range),
        "lowercase": vectorizer.lowercase,
        "accents": vectorizer.strip_accents == "unicode",
        "stop_words": sorted(vectorizer.get_stop_words() or []) or "none",
        "token_pattern": vectorizer.token_pattern,
        "weighting": "binary" if vectorizer.binary else ("tfidf" if tfidf and vectorizer.use_idf else "counts"),
        "sublinear_tf": bool(tfidf and vectorizer.sublinear_tf),
        "norm": norm or "none",
        "alternate_sign": bool(getattr(vectorizer, "alternate_sign", True)),
    }
