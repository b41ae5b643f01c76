"""Every option of every command is honoured or refused: run for real, it changes what the command does, or it is named
in the line that refuses it.

The walk goes over the commands as they are made, so an option that comes new fails here until it says how it is tried.
Methods run over two shards of a few documents, with models that know nothing. `TRIES` says with which value an option
is given, and beside which others it has something to do. The options that scorers share are walked for one of them in
the usual run, and for all with `-m slow`, as are the own options of those that take long.
"""

from __future__ import annotations

import hashlib
import inspect
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import corpus
import ladders
import language_models
from commands import Answer, command_of, dvsel, ok
from dvsel.cli.command_table import COMMANDS
from dvsel.engines import local
from dvsel.errors import UserError
from dvsel.interface.registry import SCORERS, SELECTORS, registered, scorer_class
from dvsel.language import models
from dvsel.runs import fitted_files as storage
from dvsel.runs.requests import Execution

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

pytestmark = pytest.mark.usefixtures("one_thread")

Words = tuple[str, ...]

LM, LM2, ENCODER, ENCODER2 = "models/lm", "models/lm2", "models/encoder", "models/encoder2"
OUT = ("-w", "1", "--quiet", "-o", "out")
MODEL, TARGET, LADDER = ("--model", LM), ("--target", "target.jsonl"), ("--ladder", "ladder.yaml")
SMALL = ("--dim", "4", "--buckets", "100", "--learning-rate", "1.0")
TRAIN = ("--positive", "target.jsonl", "--negative", "other.jsonl", *SMALL)
STREAM = ("--quiet", "-")
ODD = b'[]\n{"text": "one", "dvsel_dsir": 1}\n'  # one line of them is no document

METHODS: dict[str, Words] = {
    "datainf": (*MODEL, *TARGET),
    "distilled": ("--teacher", "dsir.fitted", "--distil-documents", "100", "--distil-floor", "0", "--buckets", "1000"),
    "dsir": (*TARGET, "--min-words", "20"),
    "el2n": MODEL,
    "fasttext": TRAIN,
    "grand": MODEL,
    "influence": (*MODEL, *TARGET),
    "label-noise": ("--model", ENCODER),
    "less": (*MODEL, *TARGET, "--lora-rank", "2", "--epochs", "2", "--batch-documents", "8", "--learning-rate", "0.01"),
    "mirror": (*MODEL, *TARGET),
    "perplexity": MODEL,
    "preselect": (*LADDER, *SMALL, "--positive-share", "30%"),
    "self-influence": MODEL,
    "target": (*TARGET, "--model", ENCODER),
    "tracin": (*MODEL, *TARGET),
    "trak": (*MODEL, *TARGET, "--projection-dim", "64"),
    "vog": ("--checkpoints", LM, "--checkpoints", LM2),
}
"""What each scorer needs."""
COMPLETE = "score influence"  # whose options of all kinds are tried in the usual run; those of others when it is long
LARGE = ("distilled", "preselect")  # which learn from a hundred documents or more
LONG = ("score distilled", "score less", "score preselect")  # whose own options take too long for the usual run

RULES: dict[str, Words] = {
    "round-robin": ("--queries", "target.jsonl", "--embeddings", "emb"),
    "threshold": ("--min-score", "-2000"),
    **dict.fromkeys(("coverage", "semdedup", "sensitivity"), ("--embeddings", "emb")),
}
"""What selectors need, beside a budget."""
BUDGET = ("--budget", "6 docs")


@dataclass(frozen=True)
class Case:
    """A command that works. panels: the options that are tried, by the panel of the help; all if empty."""

    words: Words
    panels: Words = ()
    stdin: bool = False


CASES = {
    **{
        f"score {name}": Case(("score", name, "large" if name in LARGE else "pool", *METHODS[name], *OUT), ("Method",))
        for name in METHODS
    },
    "score, with a pool and a target": Case(
        ("score", "dsir", "pool", *METHODS["dsir"], *OUT), ("Run", "Stream", "Execution")
    ),
    "score, with neither": Case(("score", "perplexity", "pool", *MODEL, *OUT), ("Run", "Stream", "Execution")),
    "score --fitted": Case(("score", "dsir", "pool", "--fitted", "dsir.fitted", *OUT)),
    "stream: score": Case(("score", "dsir", "--fitted", "dsir.fitted", *STREAM), stdin=True),
    "stream: score without --fitted": Case(("score", "perplexity", *MODEL, *STREAM), ("Run", "Stream"), stdin=True),
    "fit, with a pool and a target": Case(
        ("fit", "dsir", "--pool", "pool", *METHODS["dsir"], "-w", "1", "--quiet", "-o", "x.fitted"),
        ("Run", "Execution"),
    ),
    "fit, with neither": Case(("fit", "perplexity", *MODEL, "--quiet", "-o", "x.fitted"), ("Run", "Execution")),
    "fit, of documents": Case(("fit", "fasttext", *TRAIN, "--quiet", "-o", "x.fitted"), ("Run", "Execution")),
    **{
        f"select --method {name}": Case(
            (
                "select",
                "scores",
                "--method",
                name,
                *RULES.get(name, ()),
                *(BUDGET if name != "threshold" else ()),
                *OUT,
            ),
            ("Selector",),
        )
        for name in registered(SELECTORS)
        if name != "random"  # which has no options
    },
    "select": Case(("select", "scores", "--method", "random", *BUDGET, *OUT)),
    "select --with": Case(
        ("select", "pool", "--with", "target", *METHODS["target"], *BUDGET, *OUT),
        ("Choice", "Run", "Scoring", "Stream", "Execution"),
    ),
    "stream: select": Case(("select", "--min-score", "0", *STREAM), stdin=True),
    "select -o -": Case(
        ("select", "scores", "--method", "random", *BUDGET, "-w", "1", "--quiet", "-o", "-"), ("Run", "Execution")
    ),
    "embed": Case(("embed", "pool", "--model", ENCODER, *OUT)),
    "losses": Case(("losses", "pool", *LADDER, *OUT)),
    "strength": Case(("strength", "losses", *LADDER, "--quiet", "-o", "out")),
    "trace": Case(("trace", "target.jsonl", "pool", *MODEL, "--top", "2", *OUT), ("Run", "Execution")),
    "inspect": Case(("inspect", "scores")),
    "list": Case(("list",)),
}


@dataclass(frozen=True)
class Try:
    """How an option is given, and the context in which it has something to do, which stands in both runs.

    beside: further words. instead: the first of these words is taken out of the command, the others come in its place.
    before: further words of a run that goes first. stdin: what comes from there. needed: without the context the option
    is refused.
    """

    value: Words | None = None
    beside: Words = ()
    instead: Words = ()
    before: Words = ()
    stdin: bytes | None = None
    needed: bool = False

    def context(self, words: Words) -> Words:
        """The command in the context."""
        if self.instead and self.instead[0] in words:
            at = words.index(self.instead[0])
            words = (*words[:at], *self.instead[1:], *words[at + 1 :])
        return (*words, *self.beside)


TRIES: dict[str, Try | dict[str, Try]] = {
    # of runs
    "target": Try(("other.jsonl",)),
    "pool": {
        "": Try(("pool",), instead=("scores", "scores-moved")),
        "fit": Try(("other.jsonl",)),
        "score": Try(("pool",), instead=("pool", "emb-moved")),
    },
    "output": Try(("elsewhere",)),
    "fitted": {"": Try(("other.fitted",)), "select": Try(("dsir.fitted",), instead=("scores", "pool"))},
    "sample": Try(("head",), ("--sample-size", "1KB")),
    "sample_size": Try(("1KB",)),
    "seed": Try(("7",), ("--sample-size", "1KB")),
    "text_field": Try(("body",)),
    "target_text_field": Try(("body",)),
    "on_bad_file": Try(("skip",), instead=("pool", "broken")),
    "id_field": Try(("source",), ("--sample-size", "1KB")),
    "domain_field": Try(("source",)),
    "on_bad_line": {
        "": Try(("skip",), instead=("pool", "bad")),
        "stream": Try(("skip",), stdin=ODD),
        "fit, of": Try(("skip",), ("--positive", "bad")),
    },
    "distil": Try(()),
    "distil_documents": Try(("110",), ("--distil", "--distil-floor", "0"), instead=("pool", "large"), needed=True),
    "distil_floor": Try(("1.0",), ("--distil", "--distil-documents", "100"), instead=("pool", "large"), needed=True),
    "tokens_field": Try(("tokens",)),
    "tokenizer": Try((LM,)),
    "token_sample": Try(("10",), ("--tokenizer", LM), needed=True),
    "adaptive": Try((), instead=("pool", "emb")),
    "adaptive_share": Try(("0.5",), ("--adaptive",), instead=("pool", "emb"), needed=True),
    "adaptive_clusters": Try(("7",), ("--adaptive", "--adaptive-share", "0.4"), instead=("pool", "emb"), needed=True),
    "embeddings": Try(("emb",)),
    "budget": Try(("9 docs",)),
    "quota": Try(("quota.yaml",)),
    "partial": Try((), instead=("scores", "scores-partial")),
    "dedup": Try((), instead=("6 docs", "100%")),
    "shard_size": Try(("1KB",)),
    "score_field": Try(("quality",)),
    "method": {"": Try(("topk",)), "select --with": Try(("random",))},
    "with_": {"": Try(("dsir",)), "select --with": Try(("mirror", *MODEL))},
    "query": Try(("other.jsonl",)),
    "top": Try(("3",)),
    "documents": Try(("1",)),
    # of the execution
    "workers": Try(("2",)),
    "overwrite": {
        "": Try((), before=("--domain-field", "source")),
        "select": Try((), before=("--budget", "3 docs")),
        "strength": Try((), before=("--strength", "spearman")),
    },
    "dry_run": Try(()),
    "quiet": {
        "": Try((), instead=("--quiet",)),
        "stream": Try((), ("--on-bad-line", "skip"), ("--quiet",), stdin=ODD),
    },
    "json": Try(()),
    "as_json": Try(()),
    "debug": {
        "": Try((), instead=("pool", "missing")),
        "stream": Try((), stdin=ODD),
        "select": Try((), instead=("6 docs", "6 apples")),
        "strength": Try((), instead=("losses", "missing")),
        "fit, with neither": Try((), ("--model", "pool")),
        "fit, of": Try((), ("--positive", "missing")),
    },
    # of models
    "model": {
        "": Try((LM2,)),
        "score target": Try((ENCODER2,)),
        "score label-noise": Try((ENCODER2,)),
        "score fasttext": Try(("quality.bin",)),
        "embed": Try((ENCODER2,)),
        "score distilled": Try((ENCODER,)),
    },
    "window": Try(("16",)),
    "stride": Try(("8",)),
    "batch_tokens": Try(("128",)),
    "precision": Try(("bf16",)),
    "prompt_field": Try(("prompt",)),
    "prompt_separator": Try((" => ",), ("--prompt-field", "prompt"), needed=True),
    "label_field": {"": Try(("label",)), "score label-noise": Try(("domain",))},
    "reduction": Try(),
    "packing": Try(()),
    "checkpointing": Try(()),
    "spread": Try(()),
    "checkpoints": Try((LM2,), instead=(LM,)),
    "layers": Try(("last",)),
    "separate_targets": Try((), ("--target", "other.jsonl")),
    "effort": Try(("low",)),
    "rank": Try(("1",)),
    "energy": Try(("0.3",)),
    "preconditioner": Try(("none",)),
    "optimizer_state": Try(("optimizer.pt",), ("--preconditioner", "adam"), needed=True),
    "factor_documents": Try(("5",)),
    "damping": Try(("3.0",)),
    "fit_documents": Try(("5",)),
    "target_documents": Try(("3",)),
    "max_steps": Try(("1",)),
    "warmup_documents": Try(("3",)),
    "learning_rates": Try(("0.1",), needed=True),
    "fall": Try(("0.05",)),
    "step": Try(("0.001",)),
    # of embedders
    "pooling": Try(("last",)),
    "layer": Try(("1",)),
    "max_tokens": Try(("8",)),
    "dtype": Try(("float32",)),
    # of methods
    "teacher": Try(("other.fitted",)),
    "normalise": Try(("length",)),
    "words": Try(("whitespace",)),
    "min_words": Try(("30",)),
    "target_proportions": Try(("0.9,0.1",), ("--target", "other.jsonl")),
    "label": Try(("cc",)),
    "min_k": Try(("50",), ("--measure", "min-k"), needed=True),
    "neighbours": Try(("3",)),
    "index": Try(("14",)),
    "against": Try(("all",), ("--threshold", "0.97"), instead=("6 docs", "100% docs")),
    "positive_share": Try(("25%",)),
    "negative_share": Try(("20%",)),
    "temperature": Try(("1000",)),
    "clusters": Try(("3",)),
    "heap": Try(("1",), instead=("6 docs", "60%")),
    "quantile": Try(("0.5",)),
    "preprocess": Try(("datatrove",)),
    "positive": Try(("pool",)),
    "negative": Try(("pool",)),
    "ladder": Try(("ladder2.yaml",)),
    "mode": Try(("margin",), ("--clean", "other.jsonl")),
    "clean": Try(("other.jsonl",), ("--mode", "margin"), needed=True),
    "eps": {
        "": Try(("0.5",)),
        "score label-noise": Try(("0.5",), ("--mode", "margin", "--clean", "other.jsonl"), needed=True),
    },
    "rho": Try(("0.5",), ("--preset", "unbalanced"), needed=True),
    "min_chars": Try(("2",), ("--max-chars", "3"), needed=True),
    "max_chars": Try(("3",)),
    "queries": Try(("other.jsonl",)),
    "epsilon": Try(("0.5",), ("--stochastic",), needed=True),
    "min_score": Try(("-500",)),
}
"""By the parameter's name; where it depends on the command, by the beginning of the case's name. Choices, switches and
numbers that are not here are given another value than their own."""


@dataclass(frozen=True)
class Seen:
    """What a command did, its options as they are told aside.

    files: by name, the digest of what they hold. batches: shapes of what language models were given. calls: how
    often their parts ran. processes: how many were asked for at once. spread: whether models were to be over GPUs.
    """

    code: int
    out: bytes
    err: str
    files: dict[str, str]
    batches: Counter[Any]
    calls: int
    processes: tuple[int, ...]
    spread: tuple[bool, ...]


class Observed:
    """What torch and the engine are asked for. Workers do their work in this process, so that nothing has to start."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.batches: Counter[Any] = Counter()
        self.calls = 0
        self.processes: list[int] = []
        self.spread: list[bool] = []
        self._network = models._network
        self._asked = Execution.processes
        patch.setattr(local, "_in_processes", self._in_processes)
        patch.setattr(Execution, "processes", lambda *asked: self._counted(*asked))
        patch.setattr(models, "_network", self._loaded)

    def _in_processes(self, function: Any, tasks: Any, workers: int, on_progress: Any) -> Any:
        self.processes.append(workers)
        return local._here(function, tasks, on_progress)

    def _counted(self, execution: Execution, size: int | None = None) -> int:
        self.processes.append(execution.workers)
        return self._asked(execution, size)

    def _loaded(self, card: Any, spread_in: Any) -> Any:
        self.spread.append(spread_in is not None)
        return self._network(card, spread_in)

    def called(self, module: Any, inputs: Any) -> None:
        """A hook of torch."""
        self.calls += 1
        if isinstance(module, torch.nn.Embedding) and inputs:
            self.batches[tuple(inputs[0].shape)] += 1


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands name."""
    folder = tmp_path_factory.mktemp("data")
    documents = [
        {
            "id": str(row),
            "domain": one["domain"],
            "text": "\n".join(one["text"].split()[:25]),
            "body": one["text"][-100:],
            "source": f"source {row % 3}",
            "tokens": row + 5,
            "label": ("good", "bad")[row % 2],
            "prompt": f"Question {row % 5}:",
        }
        for row, one in enumerate([one for one in corpus.documents() if len(one["text"].split()) > 40][::4])
    ]
    few = [*documents[:60:6], *documents[-4:], documents[0] | {"id": "copy"}]
    corpus.write(folder / "pool" / "a.jsonl", few[:8])
    corpus.write(folder / "pool" / "b.jsonl", few[8:])
    corpus.write(folder / "large" / "a.jsonl", documents)
    corpus.write(folder / "target.jsonl", documents[1:30:8])
    corpus.write(folder / "other.jsonl", documents[-30:-6:8])
    corpus.write(folder / "bad" / "a.jsonl", corpus.lines(few[:8]) + b"[]\n")
    corpus.write(folder / "bad" / "b.jsonl", few[8:])
    corpus.write(folder / "broken" / "a.jsonl", few)
    (folder / "broken" / "b.jsonl.zst").write_bytes(b"no zstd")
    scored = [one | {"dvsel_dsir": row - 3.0, "quality": 3.0 - row} for row, one in enumerate(few)]
    corpus.write(folder / "scored.jsonl", scored)
    (folder / "quota.yaml").write_text("reference: 50%\ncode: 50%\n")
    shape = {"hidden": 16, "layers": 2, "window": 64}
    language_models.build(folder / LM, **shape)  # type: ignore[arg-type]
    language_models.build(folder / LM2, seed=1, **shape)  # type: ignore[arg-type]
    language_models.build(folder / ENCODER, "bert", task="MaskedLM", **shape)  # type: ignore[arg-type]
    language_models.build(folder / ENCODER2, "bert", seed=1, task="MaskedLM", **shape)  # type: ignore[arg-type]
    ladders.build(folder)
    ladders.write(folder / "ladder2.yaml", {name: ladders.SCORES[name] for name in ("low", "high")})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        ok("fit", "dsir", "--pool", "pool", *METHODS["dsir"], "-o", "dsir.fitted")
        ok("fit", "dsir", "--pool", "pool", "--target", "other.jsonl", "--min-words", 20, "-o", "other.fitted")
        ok("score", "dsir", "pool", "--fitted", "dsir.fitted", "-w", 1, "-o", "scores")
        ok("embed", "pool", "--model", ENCODER, "-w", 1, "-o", "emb")
        ok("losses", "pool", *LADDER, "-w", 1, "-o", "losses")
        shutil.copytree("scores", "scores-partial")
        next(Path("scores-partial").glob("b*.parquet")).unlink()
        shutil.copytree("pool", "gone")
        ok("score", "dsir", "gone", "--fitted", "dsir.fitted", "-w", 1, "-o", "scores-moved")
        ok("embed", "gone", "--model", ENCODER, "-w", 1, "-o", "emb-moved")
        shutil.rmtree("gone")
    return folder


@dataclass
class Walk:
    """Commands, each run in a folder of its own; those without the option once."""

    data: Path
    folder: Path
    known: dict[Words, Seen] = field(default_factory=dict)

    def run(self, words: Words, stdin: bytes, before: Words = ()) -> Seen:
        """What a command does, after the one before it."""
        here = self.folder / str(len(list(self.folder.iterdir())))
        here.mkdir()
        for one in self.data.iterdir():
            (here / one.name).symlink_to(one)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(here)
            if before:
                ok(*before, stdin=stdin)
            observed = Observed(patch)
            hook = torch.nn.modules.module.register_module_forward_pre_hook(observed.called)
            try:
                answer = dvsel(*words, stdin=stdin)
            except UserError as error:  # which --debug lets through
                answer = Answer(1, b"", f"Traceback {error!r}")
            finally:
                hook.remove()
            files = {
                name: content
                for place in sorted(here.iterdir())
                if not place.is_symlink()
                for name, content in held(place)
            }
        return Seen(
            answer.code,
            answer.out,
            answer.err,
            files,
            observed.batches,
            observed.calls,
            tuple(observed.processes),
            tuple(observed.spread),
        )

    def once(self, words: Words, stdin: bytes, before: Words = ()) -> Seen:
        """As `run`; the same again is not run again."""
        if (*words, *before, str(stdin)) not in self.known:
            self.known[(*words, *before, str(stdin))] = self.run(words, stdin, before)
        return self.known[(*words, *before, str(stdin))]


def held(place: Path) -> Iterator[tuple[str, str]]:
    """What a file holds, or those of a folder; recipes and reports, and what score files say of options, aside."""
    for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
        name = str(path.relative_to(place.parent))
        if (
            path.is_dir()
            or path.name in ("recipe.yaml", "report.json")
            or (".dvsel/" in name and ".dvsel/scores/" not in name)
            or ".steps" in name
        ):
            continue
        if path.name.endswith(".dvsel.parquet"):
            yield name, digest(pq.read_table(path).replace_schema_metadata().to_pydict())
        elif path.name.endswith(".fitted"):
            fitted, _ = storage.load(str(path))
            yield name, digest({key: array.tobytes() for key, array in fitted.arrays.items()}, fitted.report)
        else:
            yield name, digest(path.read_bytes())


def digest(*values: Any) -> str:
    return hashlib.sha256(repr(values).encode()).hexdigest()


def try_of(case: str, parameter: Any) -> Try:
    """How an option is tried in a case; `value` is filled in."""
    found = TRIES.get(parameter.name, Try())
    if isinstance(found, dict):
        found = next((one for begin, one in found.items() if begin and case.startswith(begin)), found.get("", Try()))
    value = another(parameter) if found.value is None else found.value
    flag = (parameter.secondary_opts or parameter.opts)[0] if parameter.default is True else parameter.opts[0]
    return replace(found, value=(flag, *value))


def another(parameter: Any) -> Words:
    """A value that is not the option's own."""
    descriptor = parameter.type_descriptor
    if parameter.is_flag:
        return ()
    if descriptor.is_choice:
        return (next(str(one) for one in descriptor.choices if one != parameter.default),)
    assert isinstance(parameter.default, int | float), f"--{parameter.name}: say in TRIES how it is tried"
    return (str(parameter.default * 2 + 1 if isinstance(parameter.default, int) else parameter.default / 2 + 0.1),)


def is_named(flag: str, line: str) -> bool:
    plain = flag.strip("-").removeprefix("no-")
    short = f"-{plain[0]} "  # -o
    return any(word in line for word in (flag, short, plain.replace("-", "_"), plain.replace("-", " ")))


def outcome(walk: Walk, words: Words, tried: Try, stdin: bytes, alone: str = "") -> str:
    """What came of an option: honoured, refused, or what went wrong. alone: what did without its context."""
    assert tried.value is not None
    before = (*words, *tried.before) if tried.before else ()
    plain = walk.once(words, stdin, before)
    if alone == "refused" and plain.code:  # and so is the context
        return alone
    given = walk.run((*words, *tried.value), stdin, before)
    if given.code and given != plain and is_named(tried.value[0], given.err):
        return "refused"
    if given.code and not plain.code:
        return f"failed and is not named: {given.err}"
    return "honoured" if given != plain else f"changes nothing ({plain.code} {plain.err})"


@pytest.fixture(scope="module")
def walk(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Walk:
    return Walk(data, tmp_path_factory.mktemp("walk"))


def test_every_command_and_method_is_walked() -> None:
    def own(group: str) -> set[str]:
        return {name for name, point in registered(group).items() if point.value.startswith("dvsel.")}

    assert set(METHODS) == own(SCORERS)
    assert {f"select --method {name}" for name in own(SELECTORS) - {"random"}} <= set(CASES)  # which has no options
    assert {case.words[0] for case in CASES.values()} == set(COMMANDS) - {"run", "demo"}  # whose options are others'


def shown(name: str, own: bool) -> list[Any]:
    """The options that are tried in a case: of a scorer those of its class alone, or those of the classes above it."""
    case = CASES[name]
    found = [
        one
        for one in command_of(case.words).params
        if one.opts[0].startswith("-")
        and one.name not in ("help", "help_all")
        and (not case.panels or one.rich_help_panel in case.panels)
    ]
    if case.panels != ("Method",) or name == COMPLETE:
        return found if own else []
    declared = inspect.get_annotations(scorer_class(case.words[1]))
    return [one for one in found if (one.name in declared) == own]


def check(name: str, parameters: list[Any], walk: Walk) -> None:
    """Each of the options is honoured or refused."""
    case = CASES[name]
    stdin = (walk.data / "scored.jsonl").read_bytes() if case.stdin else b""
    first = walk.once(case.words, stdin)
    assert first.code == 0, first.err
    wrong = []
    for parameter in parameters:
        tried = try_of(name, parameter)
        found = outcome(walk, case.words, replace(tried, before=()), stdin)
        if tried.needed and found != "refused":
            found = f"without what it needs {found}"
        elif found not in ("honoured", "refused") or tried.needed:
            content = stdin if tried.stdin is None else tried.stdin
            found = outcome(walk, tried.context(case.words), tried, content, found)
        if found not in ("honoured", "refused"):
            wrong.append(f"{' '.join(tried.value or ())}: {found}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in CASES]
)
def test_every_option_is_honoured_or_refused(name: str, walk: Walk) -> None:
    check(name, shown(name, own=True), walk)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CASES if shown(name, own=False)])
def test_every_option_that_scorers_share_is_honoured_or_refused_by_each(name: str, walk: Walk) -> None:
    check(name, shown(name, own=False), walk)
