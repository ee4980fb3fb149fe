"""Refuses a model before its weights are read: one that could not be loaded, would be cut off, or lacks weights."""

from __future__ import annotations

from transformers import PreTrainedConfig

from curate.models.load import load_config, refuse_encoder_decoder
from curate.models.outline import refuse_missing_weights, refuse_unbuildable
from curate.models.weights import WeightFacts, weight_facts
from curate.types import CurateError


def check_weights(
    name: str, *, revision: str | None = None, trust_remote_code: bool = False, attention: str | None = None
) -> WeightFacts:
    """Return the facts about a model's weights after refusing those that would fail or be wrong once they are loaded.

    Raises:
        CurateError: as `weight_facts`; a damaged or unknown configuration; an encoder-decoder; more layers in the
            weights than in the configuration; weights of the configuration that no file holds; or a configuration of
            which no model can be built, or none with this `attention`.
    """
    config = load_config(name, revision=revision, trust_remote_code=trust_remote_code)
    refuse_encoder_decoder(name, config)
    facts = weight_facts(name, revision)
    _refuse_more_layers(name, facts.num_layers, config)
    refuse_unbuildable(name, config, attention=attention, trust_remote_code=trust_remote_code)
    refuse_missing_weights(name, revision=revision, trust_remote_code=trust_remote_code)
    return facts


def _refuse_more_layers(name: str, num_layers: int | None, config: PreTrainedConfig) -> None:
    """Refuse weights with more layers than their configuration has: the library would leave out the last ones silently.

    Layers that predict several tokens ahead (num_nextn_predict_layers) are allowed: they are stored behind the others,
    and no causal model uses them.
    """
    text = config.get_text_config()
    expected = getattr(text, "num_hidden_layers", None)
    ahead = getattr(text, "num_nextn_predict_layers", None) or 0
    if num_layers and isinstance(expected, int) and num_layers > expected + ahead:
        raise CurateError(
            f"{name}: its config.json says {expected} layers, its weights hold {num_layers}: "
            "expected a configuration of the whole model; download it again, or save the shorter model by itself"
        )
