"""What LLaMA-Factory trains on, for the Python that has it: llamafactory_reads.py OUT.json FOLDER ...

Each folder is a selection. OUT.json gets {folder: {"handed_over": rows, "records": rows}}, a row being its input ids
and labels: once as llamafactory.yaml stands, and once without its line `tokenized_path`, as it reads the records
itself; in place of rows the message of an error.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import yaml


def rows_of(settings: dict[str, Any]) -> list[tuple[list[int], list[int]]] | str:
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_tokenizer

    try:
        model, data, training, _, _ = get_train_args(settings)
        tokenizer = load_tokenizer(model)["tokenizer"]
        template = get_template_and_fix_tokenizer(tokenizer, data)
        read = get_dataset(template, model, data, training, stage="sft", tokenizer=tokenizer)
    except Exception as error:  # whatever it says is what the test looks at
        return f"{type(error).__name__}: {error}"
    return [(list(row["input_ids"]), list(row["labels"])) for row in read["train_dataset"]]


def main(out: str, *folders: str) -> None:
    found = {}
    for folder in folders:
        os.chdir(folder)
        settings = yaml.safe_load(Path("llamafactory.yaml").read_text(encoding="utf-8"))
        settings |= {"overwrite_cache": True, "use_cpu": True, "output_dir": f"{out}.trained"}
        records = {key: settings[key] for key in settings if key != "tokenized_path"}
        found[folder] = {"handed_over": rows_of(dict(settings)), "records": rows_of(records)}
    Path(out).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
