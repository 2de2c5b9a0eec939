"""Released models on the Hugging Face Hub, or a server of its kind (HF_ENDPOINT), by its own client: extra `hub`."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch

from hrvgan import models
from hrvgan.errors import InputError, first_line
from hrvgan.files import atomic_folder
from hrvgan.nn.base import VideoGAN
from hrvgan.nn.checkpoint import check_out, released_folder

SCHEME = "hf://"
PATTERNS = ["*.csv", "*.json", "*.md", "*.safetensors"]  # of files that a released model has


def load(folder: str | Path, device: str | torch.device = "cpu") -> VideoGAN:
    """The released model in `folder`, one that comes with the package ("shapes-32"), or one of the Hub
    ("hf://org/name", or hf://org/name@revision), in eval mode, with EMA weights in G.

    Raises InputError when it is no released model, or its weights are those of another.
    """
    name = str(folder)
    return models.load(cached(name.removeprefix(SCHEME)) if name.startswith(SCHEME) else folder, device)


def push(folder: str | Path, name: str) -> str:
    """Upload the released model in `folder` as `name` (org/name); returns its address. A new repository is private."""
    folder = released_folder(folder)
    if not (folder / "model.json").exists():
        raise InputError(f"{folder}: no model.json, so no released model")
    with hub_errors(name) as hub:
        address = hub.HfApi().create_repo(name, private=True, exist_ok=True)
        hub.HfApi().upload_folder(
            repo_id=name, folder_path=folder, allow_patterns=PATTERNS, commit_message=f"Model {folder.name}"
        )
    return str(address)


def pull(name: str, out: str | Path) -> None:
    """Write the released model `name` of the Hub, org/name or org/name@revision, to the folder `out`."""
    check_out(out)
    folder = cached(name)
    with atomic_folder(out) as new:
        shutil.copytree(folder, new, dirs_exist_ok=True)


def cached(name: str) -> Path:
    """The released model `name` of the Hub in the cache of its client, which downloads what is not there yet."""
    repository, _, revision = name.partition("@")
    with hub_errors(name) as hub:
        return Path(hub.snapshot_download(repository, revision=revision or None, allow_patterns=PATTERNS))


@contextlib.contextmanager
def hub_errors(name: str) -> Iterator:
    """The module huggingface_hub; its errors, and those of the network, become an InputError."""
    try:
        import huggingface_hub
    except ImportError as error:
        raise InputError(f"{name}: the Hub needs another package: pip install 'hrvgan[hub]'") from error
    try:
        yield huggingface_hub
    except Exception as error:  # its own, the network's, and those of bad names
        hint = "`hf auth login` or HF_TOKEN says who you are, HF_ENDPOINT names another Hub"
        raise InputError(f"{SCHEME}{name}: {first_line(error)}; {hint}") from error
