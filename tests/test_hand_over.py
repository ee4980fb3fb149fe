"""The files for other training programs follow the run: its settings, its selection, its model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import WORDS

from curate.config import load_recipe
from curate.pipeline import perform
from curate.publish.token_set import read_token_set

MAIN = Path("run/selections/main")
RECORDS = ("kept.json", "selection.parquet", "README.md")

pytestmark = pytest.mark.usefixtures("workplace")


def select(*words: str) -> None:
    perform("select", load_recipe(None, [*WORDS, *words]))


def written(*names: str) -> dict[str, Any]:
    return {name: (MAIN / name).stat().st_ino for name in names}


def trl() -> dict[str, Any]:
    return yaml.safe_load((MAIN / "trl.yaml").read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def test_another_setting_of_training_writes_them_anew_and_leaves_the_records() -> None:
    records, adapter = written(*RECORDS), written("adapter")
    assert trl()["lora_r"] == 2
    select("train.rank=4")
    assert trl()["lora_r"] == 4
    assert (written(*RECORDS), written("adapter")) == (records, adapter)
    again = written("trl.yaml", "train.tokens", "dataset_info.json")
    select("train.rank=4", "train.merge=true")
    assert written("trl.yaml", "train.tokens", "dataset_info.json") == again


def test_the_tokens_are_those_of_the_model_to_train() -> None:
    before = list(read_token_set(MAIN / "train.tokens"))
    assert len(before) == 8
    shutil.copytree("llama", "other")
    settings = json.loads(Path("other/tokenizer.json").read_text(encoding="utf-8"))
    settings["model"]["merges"] = []  # the same letters, and nothing longer
    Path("other/tokenizer.json").write_text(json.dumps(settings), encoding="utf-8")
    select("train.model=other")
    after = list(read_token_set(MAIN / "train.tokens"))
    assert len(after) <= 8
    assert after != before
    assert trl()["model_name_or_path"] == "../../../other"
    shutil.copy("llama/tokenizer.json", "other/tokenizer.json")  # the same name, another tokenizer
    select("train.model=other")
    assert list(read_token_set(MAIN / "train.tokens")) == before


def test_a_selection_does_without_them_where_the_model_to_train_is_not_there(
    caplog: pytest.LogCaptureFixture,
) -> None:
    select("train.model=gone/away", "select.name=lone")
    [warning] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warning.startswith("no files for other training programs are written: ")
    assert "gone/away" in warning
    folder = Path("run/selections/lone")
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "kept.json", "selection.parquet"]
    select("select.name=lone")
    assert (folder / "trl.yaml").is_file()
    select("train.model=gone/away", "select.name=lone")  # what was there told of another model
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "kept.json", "selection.parquet"]


def test_what_others_put_there_stays_and_no_old_file_of_ours_does() -> None:
    (MAIN / "notes.txt").write_text("mine")
    select("select.replace=true", "select.keep=5", "prompt.system=null")
    assert (MAIN / "notes.txt").read_text() == "mine"
    assert len(list(read_token_set(MAIN / "train.tokens"))) == 5
    (MAIN / "train.messages.jsonl").write_text("of others")
    select("train.rank=3")
    assert (MAIN / "train.messages.jsonl").read_text() == "of others"


def test_they_are_made_again_where_they_were_removed() -> None:
    records = written(*RECORDS)
    (MAIN / "trl.yaml").unlink()
    shutil.rmtree(MAIN / "train.tokens")
    select()
    assert (MAIN / "trl.yaml").is_file()
    assert (MAIN / "train.tokens" / "state.json").is_file()
    assert written(*RECORDS) == records
