"""What axolotl trains on, for the Python that has it: axolotl_reads.py OUT.json FOLDER ...

Each folder is a selection. OUT.json gets {folder: {"handed_over": rows, "records": rows}}, a row being its input ids
and labels: once as axolotl.yaml stands, and once with the lines in force that it has for another model; in place of
rows the message of an error.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path


def rows_of(settings: Path, prepared: str) -> list[tuple[list[int], list[int]]] | str:
    from axolotl.cli.args import PreprocessCliArgs
    from axolotl.cli.config import load_cfg
    from axolotl.common.datasets import load_datasets

    try:
        read = load_datasets(cfg=load_cfg(str(settings), dataset_prepared_path=prepared), cli_args=PreprocessCliArgs())
    except Exception as error:  # whatever it says is what the test looks at
        return f"{type(error).__name__}: {error}"
    return [(list(row["input_ids"]), list(row["labels"])) for row in read.train_dataset]


def main(out: str, *folders: str) -> None:
    found, other_model = {}, Path(f"{out}.axolotl.yaml")
    for number, folder in enumerate(folders):
        os.chdir(folder)
        text = Path("axolotl.yaml").read_text(encoding="utf-8")
        other_model.write_text(re.sub(r"^# (datasets:|  .*)$", r"\1", text, flags=re.MULTILINE), encoding="utf-8")
        found[folder] = {
            "handed_over": rows_of(Path("axolotl.yaml"), f"{out}.{number}"),
            "records": rows_of(other_model, f"{out}.{number}.records"),
        }
    Path(out).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
