"""Vectors of texts are those of sentence-transformers, and of transformers run on one text at a time."""

from __future__ import annotations

import json
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import language_models
from dvsel.embeddings import EmbedderOptions
from dvsel.errors import Notice, UserError
from language_models import FAMILIES

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from huggingface_hub.errors import EntryNotFoundError  # noqa: E402

from dvsel.embeddings import sentence  # noqa: E402  (needs both)
from dvsel.embeddings.encoder import Embedder  # noqa: E402
from dvsel.language.models import Model  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

TEXTS = [text[: 40 + 30 * number] for number, text in enumerate(language_models.TEXTS[:25])] + ["A", "Ünïcode ΑΣ 語"]
WINDOW = 48


def embedder(model: str | Path, **options: Any) -> Embedder:
    return Embedder(EmbedderOptions(model=str(model), precision="fp32", **options))


def same(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def padded(folder: str) -> str:
    """A model whose tokenizer can pad, as sentence-transformers wants it."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = "</s>"
    tokenizer.save_pretrained(folder)
    return folder


def edit(file: Path, **settings: Any) -> None:
    held = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps(held | settings))


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    return padded(
        language_models.build(tmp_path_factory.mktemp("bert"), "bert", window=WINDOW, layers=3, task="MaskedLM")
    )


@pytest.fixture(scope="module")
def real(sentence_encoder: str) -> Embedder:
    return embedder(sentence_encoder)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> str:
    return language_models.build(tmp_path_factory.mktemp("llama"), window=WINDOW, layers=3)


@pytest.fixture
def sentence_model(bert: str, tmp_path: Path) -> Callable[..., Any]:
    """Makes a model of sentence-transformers in `tmp_path`; returns it as that library loads it."""
    library = pytest.importorskip("sentence_transformers")
    from sentence_transformers import models  # type: ignore[attr-defined]

    def make(*modules: Any, pooling: Any = "mean", **options: Any) -> Any:
        parts = [models.Transformer(bert), models.Pooling(32, pooling_mode=pooling), *modules]
        library.SentenceTransformer(modules=parts, device="cpu", **options).save(str(tmp_path))
        return library.SentenceTransformer(str(tmp_path), device="cpu")

    return make


# --- Models of sentence-transformers. ---


def test_a_real_sentence_encoder_gives_the_library_s_vectors(real: Embedder, sentence_encoder: str) -> None:
    library = pytest.importorskip("sentence_transformers")
    peer = library.SentenceTransformer(sentence_encoder, device="cpu")
    texts = [*TEXTS, language_models.TEXTS[30] * 3]
    same(real.embed(texts), peer.encode(texts))
    assert (real.maker.pooling, real.maker.layer, real.maker.max_tokens, real.width) == ("mean", 6, 256, 384)
    peer.max_seq_length = 20
    same(embedder(sentence_encoder, max_tokens=20).embed(texts), peer.encode(texts))


@pytest.mark.parametrize(
    ("mode", "named"),
    [
        ("cls", "cls"),
        ("max", "auto"),
        ("mean", "mean"),
        ("mean_sqrt_len_tokens", "auto"),
        ("weightedmean", "weighted-mean"),
        ("lasttoken", "last"),
        (("mean", "cls"), "auto"),
    ],
)
def test_pooling_is_that_of_the_module(
    mode: Any, named: str, sentence_model: Callable[..., Any], tmp_path: Path
) -> None:
    peer = sentence_model(pooling=mode)
    mine = embedder(tmp_path)
    same(mine.embed(TEXTS), peer.encode(TEXTS))
    assert mine.maker.pooling == named
    same(embedder(tmp_path, pooling=named).embed(TEXTS), mine.embed(TEXTS))


@pytest.mark.parametrize(("activation", "bias"), [(torch.nn.Tanh(), True), (torch.nn.Identity(), False)])
@pytest.mark.parametrize("safe", [True, False])
def test_what_follows_pooling_is_done(
    activation: Any, bias: bool, safe: bool, sentence_model: Callable[..., Any], tmp_path: Path
) -> None:
    from sentence_transformers import models  # type: ignore[attr-defined]

    peer = sentence_model(models.Dense(32, 12, bias, activation), models.Normalize())
    if not safe:
        (weights,) = tmp_path.glob("2_Dense/model.safetensors")
        torch.save(peer[2].state_dict(), weights.with_name("pytorch_model.bin"))
        weights.unlink()
    mine = embedder(tmp_path)
    same(mine.embed(TEXTS), peer.encode(TEXTS))
    assert mine.width == 12
    np.testing.assert_allclose(np.linalg.norm(mine.embed(TEXTS), axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("settings", [{"max_seq_length": 11}, {"max_seq_length": 40, "do_lower_case": True}])
def test_the_transformer_s_settings_hold(
    settings: dict[str, Any], sentence_model: Callable[..., Any], tmp_path: Path
) -> None:
    sentence_model()
    edit(tmp_path / "sentence_bert_config.json", **settings)
    library = pytest.importorskip("sentence_transformers")
    mine = embedder(tmp_path)
    same(mine.embed(TEXTS), library.SentenceTransformer(str(tmp_path), device="cpu").encode(TEXTS))
    assert mine.maker.max_tokens == settings["max_seq_length"]


def test_a_default_prompt_comes_first_and_vectors_are_cut(sentence_model: Callable[..., Any], tmp_path: Path) -> None:
    peer = sentence_model(prompts={"query": "About: "}, default_prompt_name="query", truncate_dim=20)
    mine = embedder(tmp_path)
    same(mine.embed(TEXTS), peer.encode(TEXTS))
    assert mine.width == 20
    assert np.isnan(mine.embed([""])).all()  # which has no tokens but the prompt's


def test_the_layout_of_old_versions_is_read(sentence_model: Callable[..., Any], tmp_path: Path) -> None:
    peer = sentence_model(pooling=("cls", "mean"))
    inner = tmp_path / "0_Transformer"
    inner.mkdir()
    for file in [path for path in tmp_path.iterdir() if path.is_file() and path.name != "modules.json"]:
        file.rename(inner / file.name)
    modules = json.loads((tmp_path / "modules.json").read_text())
    modules[0]["path"] = inner.name
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    flags = {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True, "pooling_mode_max_tokens": False}
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 32} | flags))
    same(embedder(tmp_path).embed(TEXTS), peer.encode(TEXTS))


def test_a_model_of_the_hub_is_read_as_a_folder_is(
    sentence_model: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def downloaded(name: str, file: str) -> str:
        assert name == "owner/model"
        if not (tmp_path / file).is_file():
            raise EntryNotFoundError(file)
        return str(tmp_path / file)

    sentence_model(pooling="max")
    monkeypatch.setattr("huggingface_hub.hf_hub_download", downloaded)
    there, here = sentence.read("owner/model"), sentence.read(str(tmp_path))
    assert there is not None and here is not None
    assert (there.source, there.pooling, there.digest) == ("owner/model", ("max",), here.digest)
    (tmp_path / "modules.json").unlink()
    assert sentence.read("owner/model") is None


def test_sentence_transformers_is_not_needed(sentence_encoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    assert embedder(sentence_encoder).embed(["A text."]).shape == (1, 384)


def test_the_digest_is_of_the_modules_too(sentence_model: Callable[..., Any], tmp_path: Path) -> None:
    sentence_model()
    before = embedder(tmp_path).maker.digest
    assert embedder(tmp_path, max_tokens=8).maker.digest == before
    edit(tmp_path / "1_Pooling" / "config.json", pooling_mode="max")
    assert embedder(tmp_path).maker.digest != before


# --- Other models, one text at a time. ---


def states_of(network: Any, folder: str, text: str, layer: int) -> Any:
    """(tokens, width) of a text by itself, as transformers gives them."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(text, truncation=True, max_length=WINDOW, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        return network.eval()(input_ids=ids, output_hidden_states=True).hidden_states[layer][0].double().numpy()


def pooled(states: Any, pooling: str) -> Any:
    places = np.arange(1, len(states) + 1)
    weights = {
        "mean": np.ones(len(states)),
        "weighted-mean": places,
        "cls": places == 1,
        "last": places == len(states),
    }[pooling]
    return weights @ states / weights.sum()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layer", [1, -1])
def test_a_causal_model_gives_weighted_means_of_a_layer(family: str, layer: int, tmp_path: Path) -> None:
    folder = language_models.build(tmp_path, family, window=WINDOW)
    network = transformers.AutoModelForCausalLM.from_pretrained(folder)
    mine = embedder(folder, layer=layer)
    same(mine.embed(TEXTS), [pooled(states_of(network, folder, text, layer), "weighted-mean") for text in TEXTS])
    assert (mine.maker.pooling, mine.maker.layer, mine.maker.max_tokens) == ("weighted-mean", layer % 3, WINDOW)


@pytest.mark.parametrize("pooling", ["auto", "mean", "weighted-mean", "cls", "last"])
@pytest.mark.parametrize("layer", [2, -1])
def test_any_encoder_is_pooled_as_it_is_told(pooling: str, layer: int, bert: str) -> None:
    network = transformers.AutoModel.from_pretrained(bert)
    expected = [pooled(states_of(network, bert, text, layer), pooling.replace("auto", "mean")) for text in TEXTS]
    same(embedder(bert, pooling=pooling, layer=layer).embed(TEXTS), expected)


@pytest.mark.parametrize("family", ["roberta", "t5"])
def test_encoders_of_other_kinds_are_read(family: str, tmp_path: Path) -> None:
    more: dict[str, Any] = {"d_kv": 8, "num_heads": 4, "d_ff": 64} if family == "t5" else {"pad_token_id": 1}
    kind = {"roberta": "AutoModel", "t5": "AutoModelForTextEncoding"}[family]
    task = {"roberta": "MaskedLM", "t5": "Seq2SeqLM"}[family]
    folder = language_models.build(tmp_path, family, window=WINDOW + 2, task=task, **more)
    network = getattr(transformers, kind).from_pretrained(folder)
    mine = embedder(folder, max_tokens=WINDOW)
    same(mine.embed(TEXTS), [pooled(states_of(network, folder, text, -1), "mean") for text in TEXTS])


def test_an_adapter_is_part_of_the_model(llama: str, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    adapter = language_models.adapt(tmp_path, llama)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = peft.PeftModel.from_pretrained(transformers.AutoModelForCausalLM.from_pretrained(llama), adapter)
    expected = [pooled(states_of(network, llama, text, -1), "weighted-mean") for text in TEXTS]
    same(embedder(adapter).embed(TEXTS), expected)
    assert not np.allclose(embedder(llama).embed(TEXTS), expected)


def test_layers_after_the_one_that_is_wanted_are_not_computed(llama: str) -> None:
    mine, ran = embedder(llama, layer=2), []
    for number, block in enumerate(mine.model.blocks, 1):
        block.register_forward_hook(lambda *_, number=number: ran.append(number))
    mine.embed(["A text."])
    assert ran == [1, 2]


# --- Batches. ---


@pytest.mark.parametrize("batch_tokens", [1, 100, 500])
@pytest.mark.parametrize("name", ["bert", "llama"])
def test_a_text_has_the_same_vector_in_any_batch(name: str, batch_tokens: int, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(name)
    expected = np.concatenate([embedder(folder).embed([text]) for text in TEXTS[:12]])
    same(embedder(folder, batch_tokens=batch_tokens).embed(TEXTS[:12]), expected)
    same(embedder(folder, batch_tokens=batch_tokens).embed(TEXTS[11::-1]), expected[::-1])


def test_a_text_without_tokens_has_no_vector(real: Embedder, llama: str) -> None:
    for mine, texts in ((real, ["", "word", " \n "]), (embedder(llama), ["", "word", ""])):
        found = mine.embed(texts)
        assert np.isnan(found).all(1).tolist() == [True, False, True]
        assert found.dtype == np.float32
    assert embedder(llama).embed([]).shape == (0, 32)


@pytest.mark.parametrize(
    "text",
    [
        "word " * 3000,
        "Wörter, Zahlen 12.5 und\n\nZeilen. " * 500,
        "nospaceatall" * 800,
        ("rare" + " " * 300) * 100,
        "語" * 5000,
        "..." * 2000 + " end",
    ],
)
def test_a_long_text_is_cut_as_if_it_were_tokenised_whole(text: str, real: Embedder, llama: str) -> None:
    for mine in (real, embedder(llama)):
        expected = mine.tokenise([text], mine.maker.max_tokens)[0]
        assert mine._tokens([text])[0].tolist() == expected


def test_a_batch_that_exceeds_the_memory_is_halved(bert: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, hidden = embedder(bert).embed(TEXTS), Model.hidden

    def small_memory(self: Model, ids: Any, *more: Any) -> Any:
        if ids.numel() > 100:
            raise torch.cuda.OutOfMemoryError
        return hidden(self, ids, *more)

    mine = embedder(bert, batch_tokens=700)
    monkeypatch.setattr(Model, "hidden", small_memory)
    with pytest.warns(Notice, match="exceeds the GPU's memory; going on with --batch-tokens"):
        same(mine.embed(TEXTS), expected)
    monkeypatch.setattr(Model, "hidden", lambda *_: small_memory(mine.model, torch.zeros(101)))
    with pytest.raises(UserError, match="holds no window of 48 tokens; lower --max-tokens"):
        mine.embed(TEXTS)


def test_vectors_that_are_no_numbers_are_refused(bert: str) -> None:
    mine = embedder(bert)
    with torch.no_grad():
        mine.model.network.get_input_embeddings().weight[:] = torch.inf
    with pytest.raises(UserError, match="gives vectors that are NaN or infinite; try --precision fp32"):
        mine.embed(["A text."])


# --- What cannot be used. ---


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"layer": 4}, "layer 4: model .* has 3 layers; give 1 to 3, or -1"),
        ({"layer": -4}, "layer -4: model .* has 3 layers"),
        ({"max_tokens": 49}, "max_tokens 49: model .* takes 48 tokens; give 48 or fewer"),
        ({"max_tokens": 1}, "max_tokens 1: no room beside 1 special tokens; give 2 or more"),
    ],
)
def test_options_that_do_not_suit_the_model(options: dict[str, Any], complaint: str, bert: str) -> None:
    with pytest.raises(UserError, match=complaint):
        embedder(bert, **options)


def test_a_place_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        embedder(tmp_path / "nothing")
    with pytest.raises(UserError, match=r"holds no config\.json"):
        embedder(tmp_path)


def test_a_model_that_does_not_encode(bert: str, tmp_path: Path) -> None:
    shutil.copytree(bert, tmp_path, dirs_exist_ok=True)
    edit(tmp_path / "config.json", model_type="bart", architectures=["BartModel"])
    with pytest.raises(UserError, match="bart is not an encoder of text; give a sentence encoder or causal"):
        embedder(tmp_path)


def test_a_model_without_its_tokenizer_or_weights(bert: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(bert, tmp_path, dirs_exist_ok=True)
    weights = load_file(tmp_path / "model.safetensors")
    some = {name: weight for name, weight in weights.items() if "layer.1.output" not in name}
    save_file(some, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"holds no weights for encoder.layer.1.*saved as an encoder"):
        embedder(tmp_path)
    for file in tmp_path.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(UserError, match="no usable tokenizer"):
        embedder(tmp_path)


@pytest.mark.parametrize(
    ("module", "complaint"),
    [
        ("sentence_transformers.models.CNN", "its modules are Transformer, Pooling, CNN, and what is known"),
        ("mine.Module", "module mine.Module is code of its own, which is never run"),
    ],
)
def test_modules_that_are_not_known(
    module: str, complaint: str, sentence_model: Callable[..., Any], tmp_path: Path
) -> None:
    sentence_model()
    modules = json.loads((tmp_path / "modules.json").read_text())
    (tmp_path / "modules.json").write_text(json.dumps([*modules, {"type": module, "path": "2_More"}]))
    with pytest.raises(UserError, match=complaint):
        embedder(tmp_path)


@pytest.mark.parametrize(
    ("file", "settings", "complaint"),
    [
        ("1_Pooling/config.json", {"pooling_mode": "softmax"}, "pooling 'softmax' is not known"),
        ("2_Dense/config.json", {"activation_function": "os.abort"}, "activation os.abort is not one of torch.nn"),
        ("2_Dense/config.json", {"activation_function": "torch.nn.functional"}, "is not one of torch.nn"),
        ("2_Dense/config.json", {"use_residual": True}, "the Dense in 2_Dense does more than is known"),
        ("2_Dense/model.safetensors", {}, "no usable weights in 2_Dense"),
        ("sentence_bert_config.json", {"modality_config": {"message": {}}}, "does not make states of a plain text"),
        ("1_Pooling/config.json", {"pooling_mode": ["cls", "mean"]}, "Dense takes vectors of 32 numbers, .* gives 64"),
    ],
)
def test_settings_that_are_not_known(
    file: str, settings: dict[str, Any], complaint: str, sentence_model: Callable[..., Any], tmp_path: Path
) -> None:
    from sentence_transformers import models  # type: ignore[attr-defined]

    sentence_model(models.Dense(32, 12))
    if settings:
        edit(tmp_path / file, **settings)
    else:
        (tmp_path / file).write_text("{")
    with pytest.raises(UserError, match=complaint):
        embedder(tmp_path)
