"""Fitted scorers on disk."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dvsel import __version__
from dvsel.documents.columns import Batch
from dvsel.errors import UserError
from dvsel.runs import fitted_files
from dvsel.schema import packed
from dvsel.scorers import Fitted
from dvsel.scorers.dsir import DSIR

POOL = [f"the news of day {day} and of the one before" for day in range(30)]
TARGET = [f"a function returns {value} lists of things" for value in range(10)]


def fit(**options: object) -> Fitted:
    scorer = DSIR(buckets=64, min_words=0, **options)  # type: ignore[arg-type]
    return scorer.fit([Batch.of(POOL)], {"code": [Batch.of(TARGET)], "café": [Batch.of(POOL[:3])]})


def header_of(content: bytes) -> dict[str, object]:
    size = int.from_bytes(content[:8], "little")
    header = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["dvsel"])
    assert isinstance(header, dict)
    return header


@pytest.mark.parametrize("separate", [False, True])
def test_saving_and_loading_keeps_everything(separate: bool, tmp_path: Path) -> None:
    made = fit(separate_targets=separate)
    fitted_files.save(made, str(tmp_path / "new folder" / "dsir.fitted"))
    loaded, fingerprint = fitted_files.load(str(tmp_path / "new folder" / "dsir.fitted"))
    assert loaded.scorer == made.scorer
    assert (loaded.groups, loaded.shares, loaded.unscored) == (made.groups, made.shares, made.unscored)
    assert loaded.arrays.keys() == made.arrays.keys()
    assert all(np.array_equal(loaded.arrays[name], made.arrays[name]) for name in made.arrays)
    assert np.array_equal(loaded.score(Batch.of(POOL + TARGET)), made.score(Batch.of(POOL + TARGET)))
    content = (tmp_path / "new folder" / "dsir.fitted").read_bytes()
    assert len(bytes.fromhex(fingerprint)) == 16
    assert fitted_files.to_bytes(loaded) == content


def test_the_same_fit_gives_the_same_bytes() -> None:
    assert fitted_files.to_bytes(fit()) == fitted_files.to_bytes(fit())
    assert fitted_files.to_bytes(fit()) != fitted_files.to_bytes(fit(smoothing=1e-6))


def test_the_file_says_what_it_is() -> None:
    header = header_of(fitted_files.to_bytes(fit(smoothing=1e-6)))
    assert (header["scorer"], header["version"]) == ("dsir", __version__)
    assert DSIR(**header["options"]) == fit(smoothing=1e-6).scorer  # type: ignore[arg-type]


def test_other_tools_can_read_the_arrays(tmp_path: Path) -> None:
    from safetensors import safe_open

    fitted_files.save(fit(), str(tmp_path / "dsir.fitted"))
    with safe_open(tmp_path / "dsir.fitted", "np") as file:
        assert np.array_equal(file.get_tensor("log_ratio"), fit().arrays["log_ratio"])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 7,
        b"hello, this is a text file\n" * 10,
        b"\x02\0\0\0\0\0\0\0{}",
        b"\x02\0\0\0\0\0\0\0[]",
        b"\xff" * 100,
        pickle.dumps({"scorer": "dsir"}),
    ],
)
def test_other_files_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(UserError, match=r"x: no fitted scorer of dvsel; make one with `dvsel fit NAME -o FILE`"):
        fitted_files.load(str(tmp_path / "x"))


def test_a_truncated_file_is_refused() -> None:
    content = fitted_files.to_bytes(fit())
    for size in range(0, len(content), 7):
        with pytest.raises(UserError, match="short: no fitted scorer of dvsel"):
            fitted_files.from_bytes(content[:size], "short")


def test_a_damaged_header_is_never_a_traceback() -> None:
    """Whatever byte of the header is lost: the file is refused, or what was lost does not matter."""
    content = fitted_files.to_bytes(fit())
    for at in range(8 + int.from_bytes(content[:8], "little")):
        damaged = bytearray(content)
        damaged[at] ^= 0x01
        try:
            fitted_files.from_bytes(bytes(damaged), "damaged")
        except UserError as error:
            assert "\n" not in str(error)


def saved_with(made: Fitted, **changes: Any) -> bytes:
    """A file of the fit's, with other arrays, under a digest that is right."""
    made.arrays.update(changes)
    return fitted_files.to_bytes(made)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"log_ratio": np.zeros((1, 63), np.float32)}, "array log_ratio is float32 of shape"),
        ({"log_ratio": np.zeros((1, 64), np.float64)}, "array log_ratio is float64"),
        ({"log_ratio": np.full((1, 64), np.nan, np.float32)}, "array log_ratio holds NaN or an infinite number"),
        ({"more": np.zeros(3)}, "array more does not belong there"),
        ({"groups": packed(["a", "b"])}, "array log_ratio is float32 of shape"),
        ({"groups": np.zeros(3, np.uint8)}, "array groups is not a list of names"),
        ({"shares": np.array([0.9])}, "its shares do not sum to 1"),
        ({"shares": np.array([-1.0])}, "array shares holds a number out of its range"),
    ],
)
def test_arrays_that_do_not_fit_never_reach_a_kernel(changes: dict[str, object], complaint: str) -> None:
    with pytest.raises(UserError, match=f"file: no fit that can be used \\({complaint}.*fit again"):
        fitted_files.from_bytes(saved_with(fit(), **changes), "file")


def test_options_that_the_arrays_do_not_fit() -> None:
    """Of 2**31 - 1 buckets, kernels would read far beyond the table."""
    made = fit()
    made.scorer = DSIR(buckets=2**31 - 1, min_words=0)
    with pytest.raises(UserError, match=r"array log_ratio is float32 of shape \(1, 64\), not .* 2147483647\)"):
        fitted_files.from_bytes(fitted_files.to_bytes(made), "file")


@pytest.mark.parametrize("report", [3, [], None])
def test_a_report_that_is_none(report: object) -> None:
    made = fit()
    made.report = report  # type: ignore[assignment]
    with pytest.raises(UserError, match=r"file: no fit that can be used \(its report is none\)"):
        fitted_files.from_bytes(fitted_files.to_bytes(made), "file")


def test_a_scorer_that_is_not_installed_is_named() -> None:
    content = fitted_files.to_bytes(fit()).replace(b'\\"dsir\\"', b'\\"dsri\\"')
    with pytest.raises(UserError, match=r"no scorer is named 'dsri'; did you mean 'dsir'\?"):
        fitted_files.from_bytes(content, "file")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.fitted: cannot be read \(No such file"):
        fitted_files.load(str(tmp_path / "gone.fitted"))


def test_the_name_inside_a_run() -> None:
    assert fitted_files.default_name("dsir") == "dsir.fitted"


def test_damaged_arrays_are_noticed(tmp_path: Path) -> None:
    content = bytearray(
        fitted_files.to_bytes(DSIR(min_words=0).fit([Batch.of(["a b c"])], {"t": [Batch.of(["b c d"])]}))
    )
    content[-10] ^= 1
    with pytest.raises(UserError, match=r"x\.fitted: damaged"):
        fitted_files.from_bytes(bytes(content), "x.fitted")


def test_a_fitted_scorer_must_be_the_one_that_is_asked_for(tmp_path: Path) -> None:
    fitted_files.save(
        DSIR(min_words=0).fit([Batch.of(["a b c"])], {"t": [Batch.of(["b c d"])]}), str(tmp_path / "x.fitted")
    )
    assert isinstance(fitted_files.load_of("dsir", str(tmp_path / "x.fitted")).scorer, DSIR)
    with pytest.raises(UserError, match=r"x\.fitted is a fitted dsir, not length"):
        fitted_files.load_of("length", str(tmp_path / "x.fitted"))


def test_the_report_is_kept(tmp_path: Path) -> None:
    made = fit()
    made.report = {"held-out": {"precision": 0.5}}
    fitted_files.save(made, str(tmp_path / "x.fitted"))

    loaded, _ = fitted_files.load(str(tmp_path / "x.fitted"))

    assert loaded.report == made.report
    assert loaded.lines() == ["held-out: {'precision': 0.5}"]


def test_arrays_lie_over_the_file_so_that_processes_share_them(tmp_path: Path) -> None:
    fitted_files.save(fit(), str(tmp_path / "x.fitted"))
    before = (tmp_path / "x.fitted").read_bytes()

    loaded, _ = fitted_files.load(str(tmp_path / "x.fitted"))

    assert not any(array.flags.owndata for array in loaded.arrays.values())
    loaded.arrays["log_ratio"][:] = 0  # as a plug-in may
    assert (tmp_path / "x.fitted").read_bytes() == before


def test_arrays_of_any_layout_are_kept() -> None:
    made = fit(separate_targets=True)
    made.arrays["log_ratio"] = np.asfortranarray(made.arrays["log_ratio"])

    loaded = fitted_files.from_bytes(fitted_files.to_bytes(made), "file")

    assert np.array_equal(loaded.arrays["log_ratio"], made.arrays["log_ratio"])
