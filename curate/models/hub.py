"""Finds models of the Hugging Face hub in its local cache, and fetches what the cache lacks."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HFValidationError

from curate.models.files import adapter_error, read_json, weight_files, weight_names
from curate.models.locate import did_you_mean, kind_of
from curate.types import CurateError


def cached_folder(name: str, revision: str | None = None) -> Path:
    """Return the folder of a hub model in the cache; its config.json is fetched if it is not there yet.

    The name of the folder is the commit: the cache keeps snapshots/COMMIT/config.json.

    Args:
        name: hub id.
        revision: commit, tag or branch; None is the default branch.

    Raises:
        CurateError: the hub does not have the model or cannot be reached, or it is an adapter.
    """
    try:
        return Path(hf_hub_download(name, "config.json", revision=revision)).parent
    except (OSError, EntryNotFoundError, HFValidationError) as error:
        # A repository that holds an adapter has no config.json; its own settings name the model to give instead.
        if settings := _fetched(name, "adapter_config.json", revision):
            raise adapter_error(name, settings) from error
        raise unreachable(name) from error


def unreachable(name: str, reason: str = "") -> CurateError:
    """Return the error for a name that is no local folder and that the hub does not give."""
    because = f" ({reason})" if reason else ""
    return CurateError(
        f"{name} is no local folder and cannot be had from the Hugging Face hub{because}: "
        f"download it first and give its folder{did_you_mean(Path(name))}"
    )


def fetch_weights(name: str, revision: str | None = None) -> Path:
    """Return the folder of a hub model in the cache with all its weights; what the cache lacks is fetched.

    Raises:
        CurateError: as `cached_folder`, or the model has no safetensors.
    """
    folder = cached_folder(name, revision)
    # From here on by commit: a branch could move between two files.
    for file in weight_names(folder):
        if (path := _fetched(name, file, folder.name)) is None:
            continue
        places = read_json(path, dict).get("weight_map") if file.endswith(".json") else None
        for shard in sorted({str(shard) for shard in places.values()} if isinstance(places, dict) else ()):
            if shard.endswith(".safetensors"):  # other names are refused by `weight_files` below
                _fetched(name, shard, folder.name)
        break
    weight_files(folder, name)
    return folder


def _fetched(name: str, file: str, revision: str | None) -> Path | None:
    """Return a file of a hub model in the cache, fetched if it is not there yet; None if it cannot be had."""
    try:
        path = Path(hf_hub_download(name, file, revision=revision))
    except (OSError, EntryNotFoundError, HFValidationError):
        return None
    return path if kind_of(path) else None
