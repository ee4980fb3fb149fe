"""What stands beside an adapter is enough to use it: the lines of its README.md are run here."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import save_llama

from curate.config import Train
from curate.models.load import load_model
from curate.publish.adapter import write_adapter_files
from curate.tokens.prompts import alpaca
from curate.training.lora import train_adapter
from curate.types import Example, Turn

TEMPLATE = (
    "{% for m in messages %}<s>{{ m['role'] }}\n{{ m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)
QUESTION = "Name three rivers."


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return save_llama(tmp_path / "models" / "Base-1B", hidden=16, layers=1, chat_template=TEMPLATE)


def adapter(folder: Path, base: Path, *, named: str, template: Any, system: str | None = None) -> Path:
    """An adapter that was trained for two steps, with its files."""
    from transformers import AutoTokenizer

    model = load_model(str(base), device=torch.device("cpu"))
    settings = Train.model_validate({"max_steps": 2, "rank": 2, "learning_rate": 0.1, "batch_size": 1})
    out = folder / "adapter"
    features = [([0, 40, 41, 42, 1], [-100, -100, 41, 42, 1])] * 2
    train_adapter(features, model, settings=settings, seed=0, checkpoint_dir=folder / "c", output_dir=out)
    tokenizer = AutoTokenizer.from_pretrained(base)
    write_adapter_files(out, tokenizer, base=named, template=template, settings=settings, system=system)
    for path in out.iterdir():
        assert str(folder).encode() not in path.read_bytes(), f"{path.name} names a place on this machine"
    return out


def lines_of(folder: Path) -> str:
    [code] = re.findall(r"^```python\n(.*?)^```$", (folder / "README.md").read_text(encoding="utf-8"), re.M | re.S)
    return str(code)


def run(code: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    exec(code, names)
    return names


@pytest.mark.filterwarnings("ignore::FutureWarning")  # PEFT 0.21 on transformers 5.23
@pytest.mark.parametrize("template", ["chat", "alpaca", "plain"])
@pytest.mark.parametrize("system", [None, 'Be "brief"\n{instruction}.'], ids=["", "system"])
def test_the_lines_run_on_a_local_base_and_make_the_prompt_of_training(
    tmp_path: Path, base: Path, template: Any, system: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = adapter(tmp_path, base, named=str(base), template=template, system=system)
    code = lines_of(folder)
    placeholder = "base = './Base-1B'"
    assert placeholder in code
    assert "base_model:" not in (folder / "README.md").read_text(encoding="utf-8")
    names = run(code.replace(placeholder, f"base = {str(base)!r}"), folder, monkeypatch)
    text = names["tokenizer"].decode(names["inputs"]["input_ids"][0])
    if template == "chat":
        opening = "" if system is None else f"<s>system\n{system}</s>"
        assert text == f"{opening}<s>user\n{QUESTION}</s><s>assistant\n"
    elif template == "alpaca":
        rendered = alpaca(Example(0, "", (Turn("user", QUESTION), Turn("assistant", ""))), system=system)
        assert rendered is not None
        assert text == rendered.text
    else:
        assert text == (system or "") + QUESTION
    assert names["tokenizer"].chat_template == TEMPLATE


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_with_the_path_of_its_base_written_in_peft_finds_it(tmp_path: Path, base: Path) -> None:
    from peft import AutoPeftModelForCausalLM

    folder = adapter(tmp_path, base, named=str(base), template="chat")
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    with pytest.raises(OSError, match=re.escape("./Base-1B")):  # said by name, and never fetched from the hub
        AutoPeftModelForCausalLM.from_pretrained(folder)
    path.write_text(json.dumps(config | {"base_model_name_or_path": str(base)}), encoding="utf-8")
    model = AutoPeftModelForCausalLM.from_pretrained(folder)
    ids = torch.tensor([[0, 40, 41]])
    plain = load_model(str(base), device=torch.device("cpu"))
    with torch.no_grad():
        assert not torch.equal(model(ids).logits, plain(ids).logits)


def test_the_lines_run_on_a_base_from_the_hub(tmp_path: Path, base: Path) -> None:
    """The hub is a cache in which the model lies under its id, as after a download."""
    commit, cache = "0" * 40, tmp_path / "cache" / "models--owner--Base-1B"
    shutil.copytree(base, cache / "snapshots" / commit)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(commit)
    folder = adapter(tmp_path, base, named="owner/Base-1B", template="chat")
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | {"base_model_name_or_path": "owner/Base-1B"}
    path.write_text(json.dumps(config), encoding="utf-8")
    assert "base_model: owner/Base-1B\n" in (folder / "README.md").read_text(encoding="utf-8")
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    code = f"{lines_of(folder)}\nprint(type(model).__name__, model.peft_config['default'].base_model_name_or_path)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == "PeftModelForCausalLM owner/Base-1B"
