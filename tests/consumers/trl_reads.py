"""What TRL trains on, for the Python that has it: trl_reads.py OUT.json FOLDER ...

Each folder is a selection. OUT.json gets {folder: {"handed_over": rows}}, a row being its input ids and labels, as
`trl sft --config trl.yaml` makes them; in place of rows the message of an error.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any


def rows_of(out: str) -> list[tuple[list[int], list[int]]] | str:
    import trl

    parser = trl.TrlParser((trl.ScriptArguments, trl.SFTConfig, trl.ModelConfig, trl.DatasetMixtureConfig))
    words = ["--config", "trl.yaml", "--use_cpu", "true", "--output_dir", out]
    _, arguments, model, mixture = parser.parse_args_and_config(words)
    try:
        trainer: Any = trl.SFTTrainer(
            model=model.model_name_or_path,
            args=arguments,
            train_dataset=trl.get_dataset(mixture)["train"],
            peft_config=trl.get_peft_config(model),
        )
    except Exception as error:  # whatever it says is what the test looks at
        return f"{type(error).__name__}: {error}"
    return [(list(row["input_ids"]), list(row["labels"])) for row in trainer.train_dataset]


def main(out: str, *folders: str) -> None:
    found = {}
    for folder in folders:
        os.chdir(folder)
        found[folder] = {"handed_over": rows_of(f"{out}.trained")}
    Path(out).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
