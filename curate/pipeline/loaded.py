"""Tokenizers, configurations and the scoring model of a job. Each is loaded once, when it is first asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.config import Model
from curate.types import CurateError, Exits

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from curate.models.in_memory import InMemory
    from curate.models.weights import WeightFacts
    from curate.scoring.score import ScoringModel


class Loaded:
    """Loads tokenizers, configurations and models on demand, and keeps them for the rest of the job.

    Args:
        trust_remote_code: whether code that comes with a model may run.
        offload_folder: where weights are put that a device map sends to disk.
        in_memory: a model and its tokenizer that the caller has loaded; used for the model of that name.
    """

    def __init__(self, *, trust_remote_code: bool, offload_folder: Path, in_memory: InMemory | None = None) -> None:
        self._trust = trust_remote_code
        self._offload_folder = offload_folder
        self._in_memory = in_memory
        self._tokenizers: dict[tuple[str, str | None], Any] = {}
        self._configs: dict[tuple[str, str | None], Any] = {}
        self._scoring_models: dict[tuple[str, str | None], ScoringModel] = {}
        if in_memory is not None:  # without a revision: it may have been changed since it was loaded
            self._tokenizers[in_memory.name, None] = in_memory.tokenizer
            self._configs[in_memory.name, None] = in_memory.model.config

    def _handed_in(self, name: str, revision: str | None) -> InMemory | None:
        """Return the model in memory if it is the one that is asked for, else None."""
        is_it = self._in_memory is not None and (name, revision) == (self._in_memory.name, None)
        return self._in_memory if is_it else None

    def device(self) -> torch.device:
        """Return the device of the scoring model, or the one that it would be loaded to."""
        from curate.models.device import resolve_device

        return self._in_memory.model.device if self._in_memory is not None else resolve_device()

    def fingerprints(self, name: str, revision: str | None) -> tuple[str, str]:
        """Return fingerprints of the weights of a model and of its tokenizer; others have different ones."""
        from curate.models.fingerprint import tokenizer_fingerprint, weight_fingerprint

        if (given := self._handed_in(name, revision)) is not None:
            from curate.models.in_memory import tokenizer_in_memory, weights_in_memory

            return weights_in_memory(given.model), tokenizer_in_memory(given.tokenizer)
        return weight_fingerprint(name, revision=revision), tokenizer_fingerprint(name, revision=revision)

    def tokenizer(self, name: str, revision: str | None) -> Any:
        """Return the tokenizer of a model."""
        from curate.models.load import load_tokenizer

        if (name, revision) not in self._tokenizers:
            tokenizer = load_tokenizer(name, revision=revision, trust_remote_code=self._trust)
            self._tokenizers[name, revision] = tokenizer
        return self._tokenizers[name, revision]

    def config(self, name: str, revision: str | None) -> Any:
        """Return the configuration of a model, without its weights."""
        from curate.models.load import load_config

        if (name, revision) not in self._configs:
            config = load_config(name, revision=revision, trust_remote_code=self._trust)
            self._configs[name, revision] = config
        return self._configs[name, revision]

    def weight_facts(self, name: str, revision: str | None, *, attention: str | None = None) -> WeightFacts:
        """Return what the headers of a model's weight files say; the weights are not loaded.

        `attention` is that with which they will be; one that cannot be used is refused.
        """
        from curate.models.precheck import check_weights

        if (given := self._handed_in(name, revision)) is not None:
            from curate.models.in_memory import facts_in_memory

            return facts_in_memory(given.model)
        return check_weights(name, revision=revision, trust_remote_code=self._trust, attention=attention)

    def scoring_model(self, model: Model, exits: Exits) -> ScoringModel:
        """Return a model ready to score: taken apart into blocks and head, and checked by the self-test.

        The second call for the same model returns the first one's, with the exits that were asked for then.

        Raises:
            CurateError: it cannot be loaded, or would be scored wrongly.
        """
        # By name and revision only: the other settings are those of one recipe, and do not change within a job.
        if (model.name, model.revision) not in self._scoring_models:
            self._scoring_models[model.name, model.revision] = self._load_scoring_model(model, exits)
        return self._scoring_models[model.name, model.revision]

    def _load_scoring_model(self, settings: Model, exits: Exits) -> ScoringModel:
        """Load a model, find its blocks and head, and run the self-test on it."""
        from curate.scoring.confidence import head_rows
        from curate.scoring.exits import exit_layers
        from curate.scoring.parts import find_parts
        from curate.scoring.score import ScoringModel
        from curate.scoring.selftest import confirm

        model = self._model(settings)
        parts = find_parts(model)
        layers = exit_layers(exits, parts.num_layers)
        confirm(parts, layers)
        # How many positions the LM head takes at a time, so that float32 logits of a large vocabulary fit into memory.
        vocabulary = model.get_input_embeddings().weight.shape[0]
        rows = head_rows(vocabulary, on_gpu=parts.device.type == "cuda")
        return ScoringModel(parts, layers, rows)

    def _model(self, settings: Model) -> PreTrainedModel:
        """Return the model in memory or load it; refuse what would be scored wrongly."""
        from curate.models.checks import refuse_bidirectional
        from curate.models.device import sharded_by_launcher
        from curate.models.load import load_model

        if sharded_by_launcher():
            raise CurateError(
                "FSDP and DeepSpeed split a model to train it, not to score with it: score without them (with "
                "model.device_map=auto on one process if the model is large), then launch curate train with them"
            )
        if (given := self._handed_in(settings.name, settings.revision)) is not None:
            given.model.eval()  # a model that was just trained has its dropout on
            refuse_bidirectional(given.name, given.model)
            return given.model
        return load_model(
            settings.name,
            revision=settings.revision,
            dtype=settings.dtype,
            quantization=settings.quantization,
            device_map=settings.device_map,
            offload_folder=self._offload_folder,
            attention=settings.attention,
            trust_remote_code=self._trust,
        )
