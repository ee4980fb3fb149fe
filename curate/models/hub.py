"""Models by their name on the Hugging Face hub: which commit, and the files of it in the hub's cache."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HFValidationError

from curate.models.files import adapter_error, read_json, weight_files, weight_names
from curate.models.locate import kind_of, nearest
from curate.types import CurateError


def cached_folder(name: str, revision: str | None = None) -> Path:
    """Return the folder of a hub model's commit in the cache, its config.json fetched if need be.

    The folder is called like the commit: the cache keeps snapshots/COMMIT/config.json.

    Raises:
        CurateError: not to be had from the hub, or an adapter.
    """
    try:
        return Path(hf_hub_download(name, "config.json", revision=revision)).parent
    except (OSError, EntryNotFoundError, HFValidationError) as error:
        if settings := _fetched(name, "adapter_config.json", revision):
            raise adapter_error(name, settings) from error
        raise unreachable(name) from error


def unreachable(name: str, reason: str = "") -> CurateError:
    """What to say where a name is no local folder and the hub does not give it."""
    because = f" ({reason})" if reason else ""
    return CurateError(
        f"{name} is no local folder and cannot be had from the Hugging Face hub{because}: "
        f"download it first and give its folder{nearest(Path(name))}"
    )


def fetch_weights(name: str, revision: str | None = None) -> Path:
    """Return the folder of a hub model's commit with all its weights in it, fetched if need be.

    Raises:
        CurateError: not to be had from the hub, or no safetensors.
    """
    folder = cached_folder(name, revision)
    for file in weight_names(folder):
        if (path := _fetched(name, file, folder.name)) is None:
            continue
        places = read_json(path, dict).get("weight_map") if file.endswith(".json") else None
        for shard in sorted({str(shard) for shard in places.values()} if isinstance(places, dict) else ()):
            if shard.endswith(".safetensors"):  # what else it names is refused below
                _fetched(name, shard, folder.name)
        break
    weight_files(folder, name)
    return folder


def _fetched(name: str, file: str, revision: str | None) -> Path | None:
    try:
        path = Path(hf_hub_download(name, file, revision=revision))
    except (OSError, EntryNotFoundError, HFValidationError):
        return None
    return path if kind_of(path) else None
