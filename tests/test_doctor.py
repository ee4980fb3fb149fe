"""The doctor: models that are right pass line by line, models that are broken on purpose fail by name."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import chat_templates
import pytest
import torch
from conftest import small_tokenizer
from families import FAMILIES, plain_log_probs, shorter
from safetensors.torch import load_file, save_file
from torch import nn

import curate
from curate.cli import main
from curate.config import load_recipe
from curate.pipeline import doctor
from curate.pipeline.doctor import examine
from curate.pipeline.doctor_model import examine_model, examine_parts, examine_signal, log_prob_by_layer
from curate.pipeline.doctor_tokenizer import examine_tokenizer
from curate.probe.findings import Finding, bar
from curate.scoring.parts import find_parts
from curate.types import CurateError

DEMO = Path(curate.__file__).parent / "demo" / "model"
FAMILY = {family.name: family for family in FAMILIES}
SOME = ("llama", "gpt2", "gemma2", "qwen3_moe", "opt")
MESSAGES = (
    "{% for m in messages %}<s>{{ m['role'] }}\n{{ m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)


def levels(findings: Iterator[Finding]) -> dict[str, str]:
    return {finding.name: finding.level for finding in findings}


def failed(findings: Iterator[Finding]) -> set[str]:
    return {name for name, level in levels(findings).items() if level == "fail"}


def examined(*words: str) -> list[Finding]:
    return list(examine(load_recipe(None, list(words))))


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    """A copy of the embedded model, which knows its own data set."""
    return Path(shutil.copytree(DEMO, tmp_path / "model"))


# Models


@pytest.mark.parametrize("name", SOME)
def test_a_model_that_is_right_fails_nothing(name: str) -> None:
    found = levels(examine_model(FAMILY[name].build(), 2, name="float32"))
    assert "fail" not in found.values()
    assert found["float32: order"] == "pass"
    assert found["float32: the last exit equals the model's own logits"] == "pass"
    assert found["float32: exit 2 equals the model's first 2 layers"] == "pass"


@pytest.mark.parametrize("name", ["llama", "gpt2", "opt"])
def test_a_final_norm_that_is_dropped_fails(name: str) -> None:
    parts = find_parts(FAMILY[name].build())
    broken = dataclasses.replace(parts, tail=())
    assert failed(examine_parts(broken, (2, 4), name="x")) >= {"x: the last exit equals the model's own logits"}


def sees_the_next_token(model: Any) -> Any:
    """The mistake of a mask that is shifted by one: every position attends to the one after it."""
    attention = [block.self_attn for block in model.model.layers]

    def shift(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        length = kwargs["hidden_states"].shape[1]
        mask = torch.full((1, 1, length, length), torch.finfo(torch.float32).min).triu(2)
        return args, {**kwargs, "attention_mask": mask}

    for module in attention:
        module.register_forward_pre_hook(shift, with_kwargs=True)
    return model


def test_a_mask_that_is_shifted_by_one_fails() -> None:
    model = sees_the_next_token(FAMILY["llama"].build())
    findings = list(examine_model(model, 2, name="x"))
    assert failed(iter(findings)) >= {"x: order"}
    assert "predictions depend on later tokens" in next(f.text for f in findings if f.name == "x: order")


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2"])
def test_what_a_layer_knows_is_what_a_model_of_so_many_layers_knows(name: str) -> None:
    family = FAMILY[name]
    model, texts = family.build(), [[5, 9, 17, 3, 8], [44, 2, 99]]
    by_layer = log_prob_by_layer(find_parts(model), texts)
    for k in range(1, 5):
        small = shorter(family, model, k)
        means = [plain_log_probs(small, torch.tensor(ids).numpy()).mean() for ids in texts]
        assert by_layer[k - 1] == pytest.approx(sum(means) / 2, abs=1e-4)


def test_a_model_that_only_guesses_fails_and_one_that_knows_the_text_passes() -> None:
    model = FAMILY["llama"].build()
    parts = find_parts(model)
    assert failed(examine_signal(parts, (2, 4), [[5, 9, 17, 3, 8], [44, 2, 99]])) == {"knowledge"}
    text = [7]
    for _ in range(8):
        text.append(int(model(input_ids=torch.tensor([text])).logits[0, -1].argmax()))
    found = levels(examine_signal(parts, (2, 4), [text]))
    assert found["knowledge"] == "pass"
    assert [name for name in found if name.startswith("layer")] == [f"layer {i:>3}" for i in range(1, 5)]


# Whole folders


def test_the_embedded_model_passes_in_both_precisions_of_a_cpu() -> None:
    findings = examined(f"model.name={DEMO}")
    names = [finding.name for finding in findings]
    assert failed(iter(findings)) == set()
    laws = "the last exit equals the model's own logits"
    if not torch.cuda.is_available():
        assert {f"float32: {laws}", f"bfloat16: {laws}"} <= set(names)
    assert {"versions", "device", "quantisation", "tokenizer and embedding", "knowledge"} <= set(names)
    versions = next(finding.text for finding in findings if finding.name == "versions")
    assert all(f"{name} " in versions for name in ("torch", "transformers", "accelerate", "faiss-cpu", "bitsandbytes"))


def drop(folder: Path, name: str) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights[name]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def test_weights_without_the_final_norm_fail(demo: Path) -> None:
    drop(demo, "model.norm.weight")
    findings = examined(f"model.name={demo}")
    assert failed(iter(findings)) >= {"float32: loading", "bfloat16: loading"}
    assert "model.norm.weight" in next(f.text for f in findings if f.name == "float32: loading")


def broken_on_loading(monkeypatch: pytest.MonkeyPatch, damage: Callable[[Any], None]) -> None:
    load = doctor.load_model

    def damaged(*args: Any, **kwargs: Any) -> Any:
        model = load(*args, **kwargs)
        with torch.no_grad():
            damage(model)
        return model

    monkeypatch.setattr(doctor, "load_model", damaged)


def no_norm(model: Any) -> None:
    model.model.norm = nn.Identity()


def random_head(model: Any) -> None:
    weight, generator = model.lm_head.weight, torch.Generator().manual_seed(0)
    random = torch.randn(weight.shape, generator=generator) * weight.float().std()
    model.lm_head.weight = nn.Parameter(random.to(weight.dtype))


@pytest.mark.parametrize("damage", [no_norm, random_head])
def test_a_model_that_agrees_with_itself_and_knows_nothing_fails(
    monkeypatch: pytest.MonkeyPatch, damage: Callable[[Any], None]
) -> None:
    broken_on_loading(monkeypatch, damage)
    assert failed(iter(examined(f"model.name={DEMO}"))) == {"knowledge"}


def test_a_tokenizer_that_is_larger_than_the_embedding_fails(demo: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(demo)
    tokenizer.add_tokens(["<one more>", "<and another>"])
    tokenizer.save_pretrained(demo)
    findings = examined(f"model.name={demo}")
    assert failed(iter(findings)) == {"tokenizer and embedding"}
    text = next(f.text for f in findings if f.level == "fail")
    assert "2 tokens lie beyond the embedding's 2,048 rows, '<one more>' (id 2048) first" in text


def test_a_model_that_does_not_fit_into_memory_is_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    parameters = 2_828_736
    monkeypatch.setattr(doctor, "resolve_device", lambda: torch.device("cpu"))
    monkeypatch.setattr(doctor, "_free_bytes", lambda device: 1.3 * 2 * parameters)
    monkeypatch.setattr(doctor, "load_model", lambda name, **settings: pytest.fail(f"{settings['dtype']} was loaded"))
    findings = list(doctor_without_bfloat16())
    assert [f.level for f in findings if f.name == "float32: loading"] == ["fail"]
    assert f"{parameters:,} parameters need" in next(f.text for f in findings if f.name == "float32: loading")


def doctor_without_bfloat16() -> Iterator[Finding]:
    """The findings up to the first precision that is loaded."""
    for finding in examine(load_recipe(None, [f"model.name={DEMO}", "model.dtype=float32"])):
        yield finding
        if finding.name == "float32: loading":
            return


def test_without_a_model_the_key_is_named() -> None:
    with pytest.raises(CurateError, match=r"model\.name="):
        examined()


def test_the_command_line_says_so_and_ends_with_its_code(capsys: pytest.CaptureFixture[str], demo: Path) -> None:
    assert main(["doctor", f"model.name={DEMO}"]) == 0
    out = capsys.readouterr().out
    assert {line.split("  ")[0] for line in out.splitlines()} == {"pass", "note"}
    drop(demo, "model.norm.weight")
    assert main(["doctor", f"model.name={demo}"]) == 2
    out, err = capsys.readouterr()
    assert "fail  float32: loading: " in out
    assert "of the checks above failed" in err


# Tokenizers


def tokenizer_findings(template: str | None, *, end_ids: frozenset[int] = frozenset(), **options: Any) -> list[Finding]:
    tokenizer = small_tokenizer(**options)
    tokenizer.chat_template = template
    return list(examine_tokenizer(tokenizer, rows=600, end_ids=end_ids))


def found(findings: list[Finding], name: str) -> Finding:
    return next(finding for finding in findings if finding.name == name)


def test_a_tokenizer_without_a_template_is_told_what_is_used_instead() -> None:
    findings = tokenizer_findings(None)
    assert found(findings, "chat template").level == "note"
    assert found(findings, "tokenizer and embedding") == Finding(
        "pass", "tokenizer and embedding", "512 tokens, 600 rows, 88 spare"
    )


def test_a_plain_template_passes_every_check() -> None:
    findings = tokenizer_findings(MESSAGES)
    expected = {"tokenizer and embedding", "chat template", "end token", "generation prompt", "roles", "date"}
    assert expected <= {f.name for f in findings if f.level == "pass"}
    assert found(findings, "generation prompt").text == repr("<s>assistant\n")


def test_an_end_token_at_which_generation_does_not_stop_is_noted() -> None:
    template = MESSAGES.replace("</s>", "<end>")
    options = {"extra_special_tokens": ["<end>"]}
    assert found(tokenizer_findings(template, **options), "end token").level == "note"
    stops = tokenizer_findings(template, end_ids=frozenset({512}), **options)
    assert found(stops, "end token").level == "pass"
    written = found(tokenizer_findings(MESSAGES.replace("</s>", "\n")), "end token")
    assert (written.level, written.text) == ("note", "the template writes none; training adds '</s>'")


def test_a_template_without_a_generation_prompt_is_noted() -> None:
    template = MESSAGES.partition("{% if add_generation_prompt %}")[0]
    assert found(tokenizer_findings(template), "generation prompt").level == "note"


def test_two_beginnings_fail() -> None:
    once, twice = "{{ bos_token }}" + MESSAGES.replace("<s>", "# "), "<s><s>" + MESSAGES.replace("<s>", "# ")
    assert found(tokenizer_findings(once), "beginning of the text").level == "pass"
    assert found(tokenizer_findings(twice), "beginning of the text").level == "fail"


def test_a_tokenizer_that_would_write_the_beginning_again_is_noted() -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = small_tokenizer()
    tokenizer.chat_template = MESSAGES
    processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer.backend_tokenizer.post_processor = processor
    finding = found(list(examine_tokenizer(tokenizer, rows=600, end_ids=frozenset())), "beginning of the text")
    assert finding.level == "note"
    assert "would add another" in finding.text


def test_an_end_token_that_the_tokenizer_does_not_know_fails() -> None:
    unknown = MESSAGES.replace("</s>", "<|im_end|>\n")
    finding = found(tokenizer_findings(unknown), "end token")
    assert finding.level == "fail"
    assert finding.text.startswith("the template writes '<|im_end|>', which this tokenizer does not know as a token")
    without = found(tokenizer_findings(MESSAGES.replace("</s>", "\n")), "end token")
    assert (without.level, without.text) == ("note", "the template writes none; training adds '</s>'")


def test_roles_that_a_template_refuses_are_named() -> None:
    refusing = (
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('in turn') }}{% endif %}"
        "{% endfor %}"
    )
    roles = found(tokenizer_findings(refusing + MESSAGES), "roles")
    assert roles.level == "note"
    assert "a system message, two user messages in a row, an assistant that begins" in roles.text


EVERYTHING = {
    "system messages",
    "tools that a record offers",
    "tool calls",
    "messages of the role tool",
    "thoughts (reasoning_content)",
    "documents",
}
BESIDE = "{% for t in (tools or []) + (documents or []) %}{{ t | tojson }}{% endfor %}"
WRITES_ALL = BESIDE + MESSAGES.replace(
    "{{ m['content'] }}",
    "{{ m['content'] }}{{ m['reasoning_content'] }}"
    "{% for c in m['tool_calls'] or [] %}{{ c.function.name }}{% endfor %}",
)


def left_out(template: str) -> set[str]:
    lines = [finding.text for finding in tokenizer_findings(template) if finding.name == "left out"]
    before, after = "the template does not write ", ": records are scored without them"
    assert all(line.startswith(before) and line.endswith(after) for line in lines)
    return {line.removeprefix(before).removesuffix(after) for line in lines}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (WRITES_ALL, set()),
        (MESSAGES, EVERYTHING - {"system messages", "messages of the role tool"}),
        # Only users and assistants, and of them only what they say.
        (
            f"{{% set messages = messages | rejectattr('role', 'in', ['system', 'tool']) | list %}}{MESSAGES}",
            EVERYTHING,
        ),
        (WRITES_ALL.replace("reasoning_content", "thinking"), set()),
        (WRITES_ALL.replace("c.function.name", "c.function.arguments"), {"tool calls"}),
        # What is refused is not left out: the roles say it.
        ("{% if messages[0].role == 'system' %}{{ raise_exception('none') }}{% endif %}" + WRITES_ALL, set()),
    ],
)
def test_what_a_template_neither_writes_nor_refuses_is_noted(template: str, expected: set[str]) -> None:
    assert left_out(template) == expected


def test_real_templates_say_what_they_leave_out() -> None:
    assert left_out(chat_templates.CHATML) == EVERYTHING - {"system messages", "messages of the role tool"}
    assert "thoughts (reasoning_content)" in left_out(chat_templates.LLAMA3)
    assert "tool calls" not in left_out(chat_templates.LLAMA3)
    assert left_out(chat_templates.HERMES) == {"thoughts (reasoning_content)", "documents"}
    assert "tool calls" not in left_out(chat_templates.DEEPSEEK), "it takes arguments as JSON text"


def test_a_template_that_writes_the_date_is_noted() -> None:
    assert found(tokenizer_findings("{{ strftime_now('%d %B') }}" + MESSAGES), "date").level == "note"


def test_a_template_that_refuses_everything_fails() -> None:
    findings = tokenizer_findings("{{ raise_exception('never') }}")
    assert found(findings, "chat template").level == "fail"
    assert "never" in found(findings, "chat template").text


def test_end_ids_of_the_generation_settings_are_known(demo: Path) -> None:
    path = demo / "generation_config.json"
    settings = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps({**settings, "eos_token_id": [7, 9]}), encoding="utf-8")
    recipe = load_recipe(None, [f"model.name={demo}"])
    assert {7, 9} <= doctor._end_ids(recipe, doctor.load_config(str(demo)))


def test_a_bar_is_as_long_as_its_value_is_high() -> None:
    assert [bar(v, -4.0, 0.0, width=4) for v in (-9.0, -4.0, -2.0, 0.0, math.inf)] == [
        "    ",
        "    ",
        "##  ",
        "####",
        "####",
    ]
