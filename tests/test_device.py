"""What this machine is said to be, and which trackers of training it has."""

from __future__ import annotations

import importlib.util
import sys
from contextlib import nullcontext
from pathlib import Path

import psutil
import pytest
import torch

from curate.config import load_recipe
from curate.models.device import describe_device, resolve_dtype
from curate.pipeline import perform
from curate.training.arguments import check_report_to
from curate.types import CurateError


@pytest.mark.skipif(sys.platform != "linux", reason="other systems tell less")
def test_a_processor_is_described_by_name_memory_and_precisions() -> None:
    facts = describe_device(torch.device("cpu"))
    assert (facts.kind, facts.dtypes) == ("cpu", ("float32", "bfloat16", "float16"))
    assert facts.name
    assert facts.memory is not None
    assert facts.free is not None
    assert 0 < facts.free <= facts.memory <= psutil.virtual_memory().total


@pytest.mark.parametrize(("has_bfloat16", "dtypes"), [(True, {"bfloat16"}), (False, set())])
def test_a_gpu_is_described_by_name_memory_and_precisions(
    monkeypatch: pytest.MonkeyPatch, has_bfloat16: bool, dtypes: set[str]
) -> None:
    """By a stand-in for torch.cuda; on a real one see the test below."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (30, 80))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A GPU")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: has_bfloat16)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    facts = describe_device(torch.device("cuda", 0))
    assert (facts.name, facts.kind, facts.memory, facts.free) == ("A GPU", "cuda", 80, 30)
    assert {*facts.dtypes} == {"float32", "float16"} | dtypes


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_precision_of_auto_is_among_those_of_the_gpu() -> None:
    device = torch.device("cuda", 0)
    facts = describe_device(device)
    assert facts.memory
    assert facts.free
    assert facts.free <= facts.memory
    assert str(resolve_dtype("auto", device)).removeprefix("torch.") in facts.dtypes


def test_a_tracker_that_is_not_there_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    hidden = {"wandb", "flytekit", "tensorboard", "tensorboardX"}
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name in hidden else find_spec(name, *rest)
    )
    check_report_to("none")
    check_report_to("all")  # of those that are there
    for name, package in (("wandb", "wandb"), ("flyte", "flytekit"), ("tensorboard", "tensorboard")):
        with pytest.raises(CurateError, match=rf"report_to={name} needs a package .*: pip install {package}, or"):
            check_report_to(name)
    with pytest.raises(CurateError, match=r"expected none, all or one of .*tensorboard.*wandb, got wanbd"):
        check_report_to("wanbd")


def test_a_tracker_that_is_there_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    there = {"tensorboard", "flytekit"}
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: object() if name in there else find_spec(name, *rest)
    )
    check_report_to("tensorboard")
    check_report_to("flyte")


def test_a_missing_tracker_comes_out_before_anything_is_scored(workplace: Path) -> None:
    words = ["data.path=alpaca.json", "model.name=llama", "embed.model=embedder", "run.dir=new"]
    with pytest.raises(CurateError, match=r"train\.report_to: expected none"):
        perform("run", load_recipe(None, [*words, "train.report_to=wanbd"]))
    assert not (workplace / "new" / "scores.parquet").exists()
