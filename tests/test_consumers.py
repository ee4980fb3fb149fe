"""TRL itself, where it is installed, arrives at the token ids and labels that curate trains on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import alpaca_records, save_llama
from real import real
from test_trainers import ALPACA, CHAT, MANY, MARKED, SHAREGPT, handed_over, settled, trained_on

pytest.importorskip("trl", reason="TRL is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")  # of other people's code

UNMARKED = MARKED.replace("{% generation %}", "").replace("{% endgeneration %}", "")


@pytest.fixture(params=["alpaca", "marked", "unmarked"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A model without a chat template, with one that marks what is generated, and with one that does not."""
    template = {"alpaca": None, "marked": MARKED, "unmarked": UNMARKED}[request.param]
    return save_llama(tmp_path / request.param, hidden=16, layers=1, chat_template=template)


def read_by_trl(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[int], list[int]]]:
    """Input ids and labels that `trl sft --config trl.yaml` trains on."""
    from trl import (
        DatasetMixtureConfig,
        ModelConfig,
        ScriptArguments,
        SFTConfig,
        SFTTrainer,
        TrlParser,
        get_dataset,
        get_peft_config,
    )

    monkeypatch.chdir(folder)
    parser = TrlParser((ScriptArguments, SFTConfig, ModelConfig, DatasetMixtureConfig))
    words = ["--config", "trl.yaml", "--use_cpu", "true", "--output_dir", str(folder.parent / "out")]
    _, arguments, model, mixture = parser.parse_args_and_config(words)
    assert (model.lora_r, arguments.learning_rate) == (8, 1e-5)
    trainer = SFTTrainer(
        model=model.model_name_or_path,
        args=arguments,
        train_dataset=get_dataset(mixture)["train"],
        peft_config=get_peft_config(model),
    )
    return [(list(row["input_ids"]), list(row["labels"])) for row in trainer.train_dataset]


@pytest.mark.parametrize(
    "records",
    [
        [record for record in alpaca_records(40) if 0 < len(record["output"].strip()) < 200],
        [{"messages": CHAT}, {"messages": MANY}, {"messages": [{"role": "system", "content": "s"}, *MANY]}],
        [SHAREGPT],
        [{"prompt": "Count.", "completion": " one two"}, {"prompt": "Say </s>.", "completion": "</s> it is"}],
        [ALPACA | {"output": "one two three four five " * 40}, ALPACA],
    ],
    ids=["alpaca", "messages", "sharegpt", "control tokens", "trimmed"],
)
def test_trl_trains_on_what_was_scored(
    tmp_path: Path, model: Path, records: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoTokenizer

    template = "alpaca" if model.name == "alpaca" else "chat"
    words = (f"prompt.template={template}", "train.rank=8", "train.learning_rate=0.00001")
    handed_over(tmp_path, records, model, *words)
    expected = list(trained_on(settled(tmp_path, records, model, *words), AutoTokenizer.from_pretrained(model)))
    assert len(expected) == len(records)
    assert read_by_trl(tmp_path / "run" / "selections" / "main", monkeypatch) == expected


def test_trl_trains_a_real_model_on_what_was_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    from transformers import AutoTokenizer

    records = json.loads(real("data/alpaca_9k.json").read_text(encoding="utf-8"))[:200]
    words = ("prompt.template=alpaca", "train.rank=8", "train.learning_rate=0.00001")
    base = real("models/base-7m")
    handed_over(tmp_path, records, base, *words)
    recipe = settled(tmp_path, records, base, *words)
    expected = list(trained_on(recipe, AutoTokenizer.from_pretrained(base)))
    assert len(expected) > 180
    assert read_by_trl(tmp_path / "run" / "selections" / "main", monkeypatch) == expected
