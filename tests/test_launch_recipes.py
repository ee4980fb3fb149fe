"""The accelerate configurations that we ship: accelerate reads them, and they start what they say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import DistributedType
from conftest import alpaca_records, write_json_array
from processes import free_port

from curate.config import load_recipe
from curate.config.shipped import recipes_folder
from curate.pipeline import perform
from curate.runs.processes import join_launch
from curate.types import CurateError

FOLDER = recipes_folder() / "accelerate"
TYPES = {
    "one_gpu": DistributedType.NO,
    "multi_gpu": DistributedType.MULTI_GPU,
    "multi_node": DistributedType.MULTI_GPU,
    "fsdp": DistributedType.FSDP,
    "deepspeed_zero3": DistributedType.DEEPSPEED,
    "cpu": DistributedType.MULTI_GPU,  # with MULTI_CPU accelerate starts one process
}


def test_every_configuration_is_tested_and_begins_with_what_it_is_for() -> None:
    files = sorted(FOLDER.glob("*.yaml"))
    assert [file.stem for file in files] == sorted(TYPES)
    assert all(file.read_text().startswith("# ") for file in files)


@pytest.mark.parametrize("name", TYPES)
def test_accelerate_reads_it(name: str) -> None:
    config = load_config_from_file(str(FOLDER / f"{name}.yaml"))  # refuses unknown keys
    assert config.distributed_type == TYPES[name]
    assert config.num_processes >= config.num_machines
    assert (config.num_processes == 1) == (name == "one_gpu")


def test_the_one_for_cpus_starts_two_processes(tmp_path: Path) -> None:
    script = tmp_path / "who.py"
    # one write each: what `print` writes in pieces may stand within the other's line
    line = """f"rank {os.environ['RANK']} of {os.environ['WORLD_SIZE']}\\n".encode()"""
    script.write_text(f"import os\nos.write(1, {line})\n")
    launcher = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch"]
    flags = ["--config_file", str(FOLDER / "cpu.yaml"), "--main_process_port", str(free_port())]
    done = subprocess.run([*launcher, *flags, str(script)], capture_output=True, text=True, check=True, timeout=120)
    assert sorted(done.stdout.split("\n")) == ["", "rank 0 of 2", "rank 1 of 2"]


@pytest.mark.parametrize("switch", ["ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"])
def test_sharding_is_for_training_and_for_gpus(
    tmp_path: Path, llama: Path, monkeypatch: pytest.MonkeyPatch, switch: str
) -> None:
    monkeypatch.setenv(switch, "true")
    data = write_json_array(tmp_path / "alpaca.json", alpaca_records(20))
    words = [f"data.path={data}", f"model.name={llama}", f"run.dir={tmp_path / 'run'}"]
    with pytest.raises(CurateError, match="to train it, not to score with it"):
        perform("score", load_recipe(None, words))
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(CurateError, match="need GPUs"):
        join_launch(1.0)
