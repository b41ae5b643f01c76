"""Classifiers against the library: logits and probabilities, on real text in many scripts and on odd ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from corpus import documents
from dvsel.documents.columns import Batch, Column
from dvsel.errors import Notice, UserError
from dvsel.fasttext import cache, classifier
from dvsel.fasttext.classifier import FittedClassifier, choose, classify, classify_file
from dvsel.fasttext.model import read_model
from dvsel.scorers import Scorer
from fasttext_models import ODD_TEXTS, outputs, predict, quantise, real_texts, train

TEXTS = [document["text"] for document in documents()]
SCRIPTS = [
    "Ein Satz über Vögel.",
    "Слово и дело.",
    "中文 文本 字",
    "हिन्दी में एक वाक्य",
    "جملة عربية قصيرة",
    "日本語 の 文",
]
TWO = {"hq": TEXTS[::2] + SCRIPTS, "cc": TEXTS[1::2]}
MANY = {f"l{n}": [*TEXTS[n : n + 10], SCRIPTS[n % 6]] for n in range(20)}
MANY_VECTORS = 5_000  # from where on the library, which sums them in float32, is what is inexact

MODELS: dict[str, tuple[dict[str, list[str]], dict[str, Any]]] = {
    "words": (TWO, {"minCount": 2}),
    "pairs": (TWO, {"wordNgrams": 2, "bucket": 10_000}),
    "triples and characters": (TWO, {"wordNgrams": 3, "bucket": 10_001, "minn": 2, "maxn": 4}),
    "sampling": (TWO, {"loss": "ns"}),
    "one against all": (TWO, {"loss": "ova", "wordNgrams": 2, "bucket": 1000}),
    "many": (MANY, {"wordNgrams": 2, "bucket": 5000}),
    "many against all": (MANY, {"loss": "ova", "maxn": 3, "minn": 3, "bucket": 5000}),
    "more labels than dimensions": (MANY, {"dim": 8, "wordNgrams": 2, "bucket": 5000}),
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {name: train(folder / f"{name}.bin", texts, **options) for name, (texts, options) in MODELS.items()}


def scores(path: Path, texts: list[bytes], label: str, probability: bool = False) -> np.ndarray[Any, Any]:
    fitted = classify_file(Scorer(), str(path), label, "space", probability)
    return fitted.score(Batch(Column.of(texts)))


def prepared(texts: list[bytes]) -> list[bytes]:
    return [text.replace(b"\n", b" ") for text in texts]


def words_of(path: Path) -> list[bytes]:
    words = read_model(str(path)).words
    return [words[row] for row in range(len(words))]


def vectors(path: Path, texts: list[bytes]) -> np.ndarray[Any, Any]:
    """About how many vectors a text is the mean of."""
    model = read_model(str(path))
    lengths = model.max_chars - model.min_chars + 1 if model.max_chars else 0
    return np.array([len(text.split()) * model.word_ngrams + len(text) * lengths for text in texts])


def check(path: Path, texts: list[bytes], labels: list[str], is_softmax: bool) -> None:
    """Logits within 1e-4; probabilities within 1e-6, or a step of one-vs-all's table, at the edge of one."""
    expected, reported = outputs(path, prepared(texts)), predict(path, prepared(texts))
    few = vectors(path, texts) < MANY_VECTORS
    for label in labels:
        logit = expected[label]
        edge = np.zeros(len(texts), bool)
        if is_softmax:
            others = np.stack([values for other, values in expected.items() if other != label])
            logit = logit - np.logaddexp.reduce(others)
        else:
            edge = np.abs(logit * 32 - np.round(logit * 32)) < 1e-3
        assert (np.abs(scores(path, texts, label) - logit) < np.where(few, 1e-4, 5e-4)).all()
        apart = np.abs(scores(path, texts, label, True) - reported[label])
        assert (edge | (apart < np.where(few, 1e-6, 1e-4))).all(), apart[~edge].max()
        assert (apart < 1 / 127).all() and edge.mean() < 0.02


@pytest.mark.parametrize("name", MODELS)
def test_as_the_library(models: dict[str, Path], name: str) -> None:
    texts = [text.encode() for text in [*TEXTS[::5], *SCRIPTS]] + ODD_TEXTS
    labels = list(MODELS[name][0])[:2]
    check(models[name], texts, labels, MODELS[name][1].get("loss") not in ("ova", "ns"))


@pytest.mark.parametrize("loss", ["softmax", "ova"])
def test_as_the_library_on_real_text(shared_data: Path, tmp_path: Path, loss: str) -> None:
    texts = real_texts(shared_data / "pool", 20)
    train_on = {name: some for name, some in texts.items() if len(name) % 2}
    path = train(tmp_path / "real.bin", train_on, wordNgrams=2, bucket=20_000, loss=loss)
    check(path, [text.encode() for some in texts.values() for text in some], list(train_on)[:3], loss == "softmax")


def test_a_set_of_labels_against_the_rest(models: dict[str, Path]) -> None:
    texts = [text.encode() for text in TEXTS[:50]]
    expected = outputs(models["many"], prepared(texts))
    inside, outside = ([expected[f"l{n}"] for n in numbers] for numbers in (range(3), range(3, 20)))
    logit = np.logaddexp.reduce(inside) - np.logaddexp.reduce(outside)
    assert np.abs(scores(models["many"], texts, "l0,__label__l2, l1") - logit).max() < 1e-4
    reported = predict(models["many"], prepared(texts))
    together = sum(reported[f"l{n}"] - 1e-5 for n in range(3)) + 1e-5
    assert np.abs(scores(models["many"], texts, "l0,l1,l2", True) - together).max() < 1e-6


def test_any_of_several_labels(models: dict[str, Path]) -> None:
    texts = [text.encode() for text in TEXTS[:50]]
    expected = outputs(models["many against all"], prepared(texts))
    none = np.prod([1 / (1 + np.exp(expected[label])) for label in ("l0", "l7")], axis=0)
    found = scores(models["many against all"], texts, "l0,l7")
    assert np.abs(found - np.log((1 - none) / none)).max() < 1e-4


@pytest.mark.parametrize("probability", [False, True])
def test_no_feature_is_no_score(tmp_path: Path, probability: bool) -> None:
    documents = {"1": ["word"] * 20, "0": ["other"] * 10}
    end_of_text = train(tmp_path / "some.bin", documents, minCount=25, dim=20)
    assert [len(word) for word in words_of(end_of_text)] == [4]
    assert np.isfinite(scores(end_of_text, [b"word", b""], "1", probability)).all()
    nothing = train(tmp_path / "none.bin", documents, minCount=50, dim=20)
    assert np.isnan(scores(nothing, [b"word", b""], "1", probability)).all()


@pytest.mark.parametrize("name", ["tree", "tree of many", "quantised", "quantised of many"])
def test_what_cannot_be_folded_runs_through_the_library(tmp_path: Path, name: str) -> None:
    options = {"loss": "hs"} if name.startswith("tree") else {"wordNgrams": 2, "bucket": 1000}
    path = train(tmp_path / "model.bin", MANY if "many" in name else TWO, **options)
    path = quantise(path) if name.startswith("quantised") else path
    label = "l3" if "many" in name else "hq"
    texts = [text.encode() for text in TEXTS[:30]] + ODD_TEXTS
    with pytest.warns(Notice, match=r"model\.(bin|ftz): its .*, so the fasttext package scores"):
        found = scores(path, texts, label, True)
        logits = scores(path, texts, label)
    reported = predict(path, prepared(texts))
    expected = reported.pop(label)
    left_out = np.isnan(expected)
    assert np.abs(found - expected)[~left_out].max() < 1e-6
    assert (found[left_out] < 1e-5).all()
    rest = np.nansum([np.maximum(other - 1e-5, 0) for other in reported.values()], axis=0)
    clear = (expected > 1e-2) & (rest > 1e-2)
    assert clear.any()
    assert np.abs(logits - np.log((expected - 1e-5) / rest))[clear].max() < 5e-3
    assert np.isfinite(logits).all()


def test_a_model_in_memory(models: dict[str, Path]) -> None:
    fitted = classify(Scorer(), read_model(str(models["pairs"])), "hq", "dclm", report={"trained": {"positive": 5}})
    one = fitted.score(Batch.of([f"  {TEXTS[0]}\r\n"]))
    assert one == scores(models["pairs"], [" ".join(TEXTS[0].strip().splitlines()).encode()], "hq")
    assert fitted.lines() == ["score: log-odds of hq against cc; texts prepared as dclm", "trained: 5 positive"]


def test_labels_by_name() -> None:
    assert choose(("en", "de", "a,b"), "de,__label__en", "m") == ("en", "de")
    assert choose(("en", "de", "a,b"), "a,b", "m") == ("a,b",)
    assert choose(("cc", "HQ"), "", "m") == ("HQ",)
    assert choose(("0", "1"), "", "m") == ("1",)
    assert choose(("only",), "", "m") == ("only",)


@pytest.mark.parametrize(
    ("labels", "wanted", "complaint"),
    [
        (("hq", "cc"), "good", "has no label 'good' among its 2; it has hq, cc"),
        (("hq", "cc"), "hq,", "has no label ''"),
        (tuple(f"l{n}" for n in range(30)), "l31", "among its 30; did you mean 'l"),
        (("a", "b"), "", "which mean keep is not plain; name them with --label"),
        (("pos", "hq"), "", "not plain"),
        (tuple(f"l{n}" for n in range(30)), "", "l9 and 20 more, and which"),
    ],
)
def test_labels_that_are_not_there(labels: tuple[str, ...], wanted: str, complaint: str) -> None:
    with pytest.raises(UserError, match=f"^m: .*{complaint}"):
        choose(labels, wanted, "m")


def test_all_labels_are_no_choice(models: dict[str, Path]) -> None:
    with pytest.raises(UserError, match="all labels"):
        scores(models["pairs"], [], "hq,cc")
    assert len(scores(models["one against all"], [b"text"], "hq,cc")) == 1


def cached_files() -> list[Path]:
    return sorted(cache.folder().glob("*"))


def folds(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """List the files that are read from now on."""
    from dvsel.fasttext import model

    read: list[str] = []
    whole = model.read_model
    monkeypatch.setattr(model, "read_model", lambda path: (read.append(path), whole(path))[1])  # type: ignore[func-returns-value]
    return read


def test_a_model_is_folded_once(models: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    read, path = folds(monkeypatch), tmp_path / "model.bin"
    path.write_bytes(models["pairs"].read_bytes())
    first = scores(path, [b"some text"], "hq")
    assert scores(path, [b"some text"], "hq") == first
    assert scores(path, [b"some text"], "hq", True) != first
    assert (len(read), len(cached_files())) == (1, 1)
    assert scores(path, [b"some text"], "cc") == -first
    assert (len(read), len(cached_files())) == (2, 2)
    path.write_bytes(models["words"].read_bytes())
    assert scores(path, [b"some text"], "hq") != first
    assert (len(read), len(cached_files())) == (3, 3)


@pytest.mark.parametrize("damage", [b"", b"garbage", None])
def test_a_damaged_cache_is_made_again(
    models: dict[str, Path], monkeypatch: pytest.MonkeyPatch, damage: bytes | None
) -> None:
    read = folds(monkeypatch)
    first = scores(models["pairs"], [b"some text"], "hq")
    (file,) = cached_files()
    content = file.read_bytes()
    file.write_bytes(content[:-9] + b"changed!!" if damage is None else damage)
    assert scores(models["pairs"], [b"some text"], "hq") == first
    assert len(read) == 2 and file.read_bytes() == content


def test_a_cache_that_no_kernel_may_see_is_made_again(models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole, by its digest, but with a table in which a search would not end."""
    read = folds(monkeypatch)
    first = scores(models["pairs"], [b"some text"], "hq")
    key = cached_files()[0].stem
    arrays = cache.read(key)
    assert arrays is not None
    cache.write(key, {**arrays, "words": np.full_like(arrays["words"], 1)})
    assert scores(models["pairs"], [b"some text"], "hq") == first
    assert len(read) == 2


def test_labels_so_many_that_documents_go_in_parts(models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [b"some text", b"", b"more of it"]
    whole = scores(models["many"], texts, "l1")
    monkeypatch.setattr(classifier, "_AT_ONCE", 25)
    assert np.array_equal(scores(models["many"], texts, "l1"), whole, equal_nan=True)


def test_a_cache_that_cannot_be_written(models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/nowhere")
    assert np.isfinite(scores(models["pairs"], [b"some text"], "hq")).all()


def test_the_arrays_are_views(models: dict[str, Path]) -> None:
    fitted = classify_file(Scorer(), str(models["pairs"]), "hq", "space")
    again = FittedClassifier(fitted.scorer, fitted.arrays)
    for name, array in fitted.arrays.items():
        assert again.arrays[name] is array or np.shares_memory(again.arrays[name], array)
    assert (again.score(Batch.of(TEXTS[:3])) == fitted.score(Batch.of(TEXTS[:3]))).all()
