"""How far work is, told from deep inside."""

from __future__ import annotations

from pathlib import Path

import pytest

import corpus
from dvsel.progress import WAITS, Done, parts, show, showing, step, stopped_in, tell, waiting, watched, within


def test_what_is_shown_goes_to_who_asked() -> None:
    told: list[tuple[str, Done, int]] = []
    show("nobody", 1, 2)
    with showing(lambda *one: told.append(one)):
        show("fit", 1, 2, documents=3, tokens=4)
        with waiting(WAITS[0]):
            pass
    show("nobody", 1, 2)
    assert told == [("fit", Done(1, 3, 4), 2), (WAITS[0], Done(), 0)]


def test_stages_are_named_after_the_steps_around_them() -> None:
    told: list[str] = []
    with showing(lambda stage, *_: told.append(stage)):
        with step("round 1 of 16"), step("teacher"):
            tell("scoring")
        tell("scoring")
    assert told == ["round 1 of 16: teacher: scoring", "scoring"]


def test_passes_share_the_work() -> None:
    shares: list[float] = []
    with watched(shares.append):
        for _ in parts("abcd"):
            within(0.5)
            for _ in parts("ef"):
                within(1.0)
        within(1.0)
    assert shares == [0.125, 0.125, 0.25, 0.375, 0.375, 0.5, 0.625, 0.625, 0.75, 0.875, 0.875, 1.0, 1.0]


def test_a_pass_that_fails_leaves_no_part_behind() -> None:
    shares: list[float] = []
    passes = parts("ab")
    with watched(shares.append):
        next(passes)
        passes.close()  # type: ignore[attr-defined]
        within(0.5)
    assert shares == [0.5]


def test_ctrl_c_names_the_step_beside_what_is_kept() -> None:
    with pytest.raises(KeyboardInterrupt) as stop, stopped_in("round 3 of 16"):
        error = KeyboardInterrupt()
        error.add_note("kept: 2 of 3 shards")
        raise error
    assert stop.value.__notes__ == ["kept: 2 of 3 shards", "this was round 3 of 16"]


def test_every_stage_of_a_selection_is_told(tmp_path: Path) -> None:
    from dvsel.commands.select import select
    from dvsel.runs.requests import Execution, Fitting, SelectRun
    from dvsel.scorers.dsir import DSIR

    shard = corpus.write(tmp_path / "pool.jsonl", corpus.pool())
    target = corpus.write(tmp_path / "target.jsonl", corpus.target())
    fitting = Fitting(target=(str(target),))
    run = SelectRun(scorer=DSIR(), fitting=fitting, pool=(str(shard),), budget="10%", output=str(tmp_path / "out"))
    last: dict[str, tuple[Done, int]] = {}

    def note(stage: str, done: Done, total: int) -> None:
        last[stage] = done, total

    with showing(note):
        select(run, Execution(workers=1))
    size, documents = shard.stat().st_size, len(corpus.pool())
    assert list(last) == [
        "sampling the pool",
        "fitting dsir",
        "scoring",
        "choosing documents",
        "writing the subset",
    ]
    for stage, (done, total) in last.items():
        if total:
            assert (done.bytes, done.documents, total) == (size, documents, size), stage
    assert last["scoring"][0].tokens > documents


@pytest.mark.parametrize("name", ["perplexity", "mirror", "embed"])
def test_models_tell_how_far_a_batch_is(name: str, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    import language_models
    from dvsel.documents.columns import Batch
    from dvsel.embeddings import EmbedderOptions
    from dvsel.embeddings.encoder import Embedder
    from dvsel.scorers.mirror import Mirror
    from dvsel.scorers.perplexity import Perplexity

    texts = [text[:300] for text in language_models.TEXTS[:12]]
    model = language_models.build(tmp_path / "model")
    shares: list[float] = []
    with watched(shares.append):
        if name == "embed":
            Embedder(EmbedderOptions(model, batch_tokens=128)).embed(texts)
        elif name == "perplexity":
            Perplexity(model=model, batch_tokens=128).fit([], {}).score(Batch.of(texts))
        else:
            scorer = Mirror(model=model, batch_tokens=128, preconditioner="none")
            fitted = scorer.fit([], {"target": [Batch.of(texts[:3])]})
            shares.clear()
            fitted.score(Batch.of(texts))
    assert len(shares) > 3 and shares == sorted(shares) and 0 < shares[0] < shares[-1]
    assert shares[-1] == pytest.approx(1)
