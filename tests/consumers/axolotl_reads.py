"""What axolotl trains on, for the Python that has it: axolotl_reads.py OUT.json FOLDER ...

Each folder is a selection. OUT.json gets {folder: rows}, a row being its input ids and labels, or what axolotl said.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path


def rows_of(folder: str) -> list[tuple[list[int], list[int]]] | str:
    from axolotl.cli.args import PreprocessCliArgs
    from axolotl.cli.config import load_cfg
    from axolotl.common.datasets import load_datasets

    os.chdir(folder)
    try:
        settings = load_cfg("axolotl.yaml", dataset_prepared_path=str(Path(folder).parents[1] / "prepared"))
        read = load_datasets(cfg=settings, cli_args=PreprocessCliArgs())
    except Exception as error:  # whatever it says is what the test looks at
        return f"{type(error).__name__}: {error}"
    return [(list(row["input_ids"]), list(row["labels"])) for row in read.train_dataset]


def main(out: str, *folders: str) -> None:
    target = Path(out).resolve()
    target.write_text(json.dumps({folder: rows_of(folder) for folder in folders}), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
