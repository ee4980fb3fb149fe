"""Training programs themselves, where they are installed, arrive at the token ids and labels that curate trains on.

TRL comes with the extra `dev`. LLaMA-Factory and axolotl pin other versions of the same libraries, so they live in
environments of their own: CURATE_LLAMAFACTORY_PYTHON and CURATE_AXOLOTL_PYTHON name the Python of each (and
CURATE_TRL_PYTHON that of another TRL). Tried with TRL 1.16.0, LLaMA-Factory 0.9.5 and axolotl 0.19.0.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import WORDS, alpaca_records, save_llama
from real import real
from test_trainers import ALPACA, CHAT, MANY, MARKED, SHAREGPT, TOOLS, handed_over, settled, trained_on

from curate.config import load_recipe
from curate.pipeline import perform

PROGRAMS = ("trl", "llamafactory", "axolotl")
Rows = list[tuple[list[int], list[int]]]

UNMARKED = MARKED.replace("{% generation %}", "").replace("{% endgeneration %}", "")
TOOLED = "{% if tools %}<s>tools\n{{ tools | tojson }}</s>{% endif %}" + UNMARKED.replace(
    "{{ m['content'] }}</s>",
    "{{ m['content'] }}{% for c in m['tool_calls'] or [] %}{{ c['function'] | tojson }}{% endfor %}</s>",
    1,
)
TEMPLATES = {"none": None, "marked": MARKED, "unmarked": UNMARKED, "tooled": TOOLED}


@dataclass(frozen=True)
class Case:
    """Records to hand over: with which of the models, in which kind of file, with which settings."""

    records: Callable[[], list[dict[str, Any]]]
    models: tuple[str, ...] = ("none", "marked", "unmarked")
    kind: str = "jsonl"
    words: tuple[str, ...] = ()


def usual() -> list[dict[str, Any]]:
    return [record for record in alpaca_records(40) if 0 < len(record["output"].strip()) < 200]


def tool_talk() -> list[dict[str, Any]]:
    turns = [("human", "hi"), ("function_call", '{"name": "f", "arguments": {"x": 1}}'), ("observation", "2")]
    talk = [{"from": a, "value": b} for a, b in [*turns, ("gpt", "two")]]
    return [{"conversations": talk, "tools": json.dumps(TOOLS)}, {"conversations": talk[:1] + talk[3:], "tools": "[]"}]


def real_alpaca() -> list[dict[str, Any]]:
    return json.loads(real("data/alpaca_9k.json").read_text(encoding="utf-8"))[:60]  # type: ignore[no-any-return]


def real_tools() -> list[dict[str, Any]]:
    path = real("data/formats/glaive_toolcall_en_demo.json")
    return json.loads(path.read_text(encoding="utf-8"))[:40]  # type: ignore[no-any-return]


CHATS = ("marked", "unmarked")
TALKS = [{"messages": CHAT}, {"messages": MANY}]
CASES = {
    "alpaca": Case(usual),
    "alpaca-json": Case(usual, kind="json"),
    "alpaca-csv": Case(usual, kind="csv"),
    "alpaca-parquet": Case(usual, kind="parquet"),
    "prompt.system": Case(usual, words=("prompt.system=Be brief.",)),
    "system-field": Case(lambda: [record | {"system": "Be kind."} for record in usual()]),
    "history": Case(lambda: [record | {"history": [["a", "b"]]} for record in usual()[:5]]),
    "messages": Case(lambda: [*TALKS, {"messages": [{"role": "system", "content": "s"}, *MANY]}]),
    "messages-parquet": Case(lambda: TALKS, kind="parquet"),
    "sharegpt": Case(lambda: [SHAREGPT, SHAREGPT]),
    "tools": Case(tool_talk, models=("tooled",)),
    "control-tokens": Case(
        lambda: [{"prompt": "Count.", "completion": " one"}, {"prompt": "</s>?", "completion": "</s>"}]
    ),
    "across-words": Case(
        lambda: [{"prompt": "red blue su", "completion": "m name"}] * 2, ("none",), words=("prompt.template=plain",)
    ),
    "trimmed": Case(lambda: [ALPACA | {"output": "one two three four five " * 40}, ALPACA]),
    "real-alpaca": Case(real_alpaca, ("base-7m", "stories260K"), "json", ("prompt.max_length=512",)),
    "real-tools": Case(real_tools, ("tooled",), "json", ("prompt.max_length=2048",)),
}
NAMES = [f"{name}/{model}" for name, case in CASES.items() for model in case.models]

# Where a program arrives at the same from the records, which it is told to read for another model.
BY_ITSELF = {
    "llamafactory": {
        "alpaca",
        "alpaca-json",
        "alpaca-csv",
        "alpaca-parquet",
        "prompt.system",
        "system-field",
        "history",
    }
    | {"messages", "messages-parquet", "sharegpt", "trimmed"},
    "axolotl": set(CASES) - {"control-tokens", "across-words", "trimmed", "tools", "real-alpaca", "real-tools"}
    | {"real-alpaca/base-7m"},  # not with the other model, whose tokenizer begins every text with a blank
}


def python_with(program: str) -> str:
    """The Python that has a training program; the test is skipped where there is none."""
    variable = f"CURATE_{program.upper()}_PYTHON"
    if named := os.environ.get(variable):
        return named
    if importlib.util.find_spec(program) is None:
        pytest.skip(f"{program} is not installed here, and {variable} names no Python that has it")
    return sys.executable


def call(command: list[str], folder: Path, *, cwd: Path | None = None) -> None:
    """Run a command that has an environment of its own, offline and with its caches in `folder`."""
    own = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "AXOLOTL_DO_NOT_TRACK": "1", "TOKENIZERS_PARALLELISM": "false"}
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= own | {"HF_DATASETS_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    environment["PATH"] = f"{Path(command[0]).parent}{os.pathsep}{os.environ['PATH']}"  # they call accelerate by name
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {
        name: save_llama(folder / name, hidden=16, layers=1, chat_template=template)
        for name, template in TEMPLATES.items()
    }


@pytest.fixture(scope="module")
def selections(tmp_path_factory: pytest.TempPathFactory, models: dict[str, Path]) -> dict[str, tuple[Path, Rows]]:
    """The folder of each case, and the token ids and labels that curate trains on; real data where it is there."""
    from transformers import AutoTokenizer

    found = {}
    for name in NAMES:
        case, model = CASES[name.partition("/")[0]], name.partition("/")[2]
        try:
            base, records = models.get(model) or real(f"models/{model}"), case.records()
        except pytest.skip.Exception:
            continue
        folder = tmp_path_factory.mktemp("case")
        template = "chat" if TEMPLATES.get(model) else "alpaca"
        words = (f"prompt.template={template}", "train.rank=8", "train.learning_rate=0.00001", *case.words)
        handed_over(folder, records, base, *words, kind=case.kind)
        recipe = settled(folder, records, base, *words, kind=case.kind)
        features = trained_on(recipe, AutoTokenizer.from_pretrained(base))
        found[name] = folder / "run" / "selections" / "main", [(list(ids), list(labels)) for ids, labels in features]
        assert len(found[name][1]) == len(records)
    return found


@pytest.fixture(scope="module")
def readings(
    tmp_path_factory: pytest.TempPathFactory, selections: dict[str, tuple[Path, Rows]]
) -> Callable[[str], dict[str, Any]]:
    """Call a program once for all cases: {name: {"handed_over": rows, "records": rows}}."""
    done: dict[str, dict[str, Any]] = {}

    def read(program: str) -> dict[str, Any]:
        if program not in done:
            python, folder = python_with(program), tmp_path_factory.mktemp(program)
            script = Path(__file__).parent / "consumers" / f"{program}_reads.py"
            folders = {name: str(path.resolve()) for name, (path, _) in selections.items()}
            call([python, str(script), str(folder / "out.json"), *folders.values()], folder)
            found = json.loads((folder / "out.json").read_text(encoding="utf-8"))
            done[program] = {name: found[path] for name, path in folders.items()}
        return done[program]

    return read


def in_any_order(rows: Any) -> Any:
    """Rows for a comparison (axolotl shuffles them, as a trainer would); or the message, if it is one."""
    return rows if isinstance(rows, str) else sorted([list(ids), list(labels)] for ids, labels in rows)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("program", PROGRAMS)
def test_it_trains_on_what_was_scored(
    program: str,
    name: str,
    readings: Callable[[str], dict[str, Any]],
    selections: dict[str, tuple[Path, Rows]],
) -> None:
    if "real" in name:
        CASES[name.partition("/")[0]].records()  # skips where there is none, and is counted
    assert in_any_order(readings(program)[name]["handed_over"]) == in_any_order(selections[name][1])


@pytest.mark.parametrize("program", ["llamafactory", "axolotl"])
def test_what_it_makes_of_the_records_for_another_model(
    program: str, readings: Callable[[str], dict[str, Any]], selections: dict[str, tuple[Path, Rows]]
) -> None:
    found = readings(program)
    alike = {
        name for name, (_, rows) in selections.items() if in_any_order(found[name]["records"]) == in_any_order(rows)
    }
    expected = {
        name
        for name in selections
        if {name, name.partition("/")[0]} & BY_ITSELF[program]
        and (program == "axolotl" or name.partition("/")[2] in CHATS)
    }
    assert alike == expected


WITHOUT_KERNELS = ("--no-lora-mlp-kernel", "--no-lora-qkv-kernel", "--no-lora-o-kernel")  # they need a GPU
COMMANDS = {
    "trl": ["-m", "trl.cli.main", "sft", "--config", "trl.yaml", "--use_cpu", "true"],
    "llamafactory": ["-c", "from llamafactory.cli import main; main()", "train", "llamafactory.yaml"],
    "axolotl": ["-m", "axolotl.cli.main", "train", "axolotl.yaml", *WITHOUT_KERNELS],
}


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS)
def test_it_trains_and_leaves_our_adapter_alone(
    program: str, workplace: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def files() -> dict[str, str]:
        paths = sorted(path for path in (workplace / "run" / "selections").rglob("*") if path.is_file())
        return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}

    before = files()
    call([python_with(program), *COMMANDS[program]], tmp_path, cwd=workplace / "run" / "selections" / "main")
    assert (workplace / "run" / f"trained-by-{program}" / "main" / "adapter_model.safetensors").is_file()
    with caplog.at_level("INFO", logger="curate"):
        perform("train", load_recipe(None, list(WORDS)))
    assert "selections/main/adapter: finished before" in [record.getMessage() for record in caplog.records]
    assert before.items() <= files().items()  # datasets keeps caches of its own beside what it has read
