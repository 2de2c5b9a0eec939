"""How the weight files of the published networks are read: by name, by digest, and without unpickling code.

Nothing is fetched here: a file lies in the weights folder or it does not.
"""

import zipfile
from pathlib import Path

import numpy as np

from hrvgan.errors import InputError
from hrvgan.fetching.weights import FOLDER, WEIGHTS
from hrvgan.files import file_digest


class WeightsMissing(InputError):
    """No file: scores that need no weights go on."""


def find_weights(names: tuple[str, ...], folder: str | Path = FOLDER) -> Path:
    """The first of the files `names` (each does) that lies in `folder`; raises WeightsMissing in one sentence."""
    for name in names:
        if (Path(folder) / name).is_file():
            return Path(folder) / name
    file = WEIGHTS[names[0]]
    others = f" (or {', '.join(names[1:])})" if names[1:] else ""
    raise WeightsMissing(
        f"{file.name}{others} is not in {folder}: `hrvgan weights {file.name}` gets the weights of {file.network}, "
        f"or put them there from {file.urls[0]}"
    )


def check_digest(path: Path) -> str:
    """sha256 of the file. Raises InputError for another size or digest than the published one."""
    known, size = WEIGHTS[path.name], path.stat().st_size
    if known.size and size != known.size:
        raise InputError(f"{path}: {size:,} bytes, the published file has {known.size:,}; fetch it again")
    digest = file_digest(path)
    if known.sha256 and digest != known.sha256:
        raise InputError(
            f"{path}: sha256 {digest[:12]}…, the published file's is {known.sha256[:12]}…; it is damaged or other "
            "weights: fetch it again"
        )
    return digest


def is_published(path: Path) -> bool:
    """Whether the sha256 of the published file is known; then `check_digest` let no other one pass."""
    return bool(WEIGHTS[path.name].sha256)


def read_arrays(path: Path) -> dict:
    """Name -> tensor, of an npz without pickles or a state dict that torch reads as weights only."""
    import torch

    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as stored:
                return {name: torch.from_numpy(stored[name]) for name in stored.files}
        arrays = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, ValueError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile) as error:
        raise _unreadable(path, error) from None
    except Exception as error:  # pickle.UnpicklingError, and what a torn file makes of a pickle machine
        raise _unreadable(path, error) from None
    if not isinstance(arrays, dict) or not all(isinstance(value, torch.Tensor) for value in arrays.values()):
        raise InputError(f"{path}: no table of named arrays; fetch the published file again")
    return arrays


def _unreadable(path: Path, error: Exception) -> InputError:
    reason = str(error).split("\n")[0].split(". ")[0][:160] or type(error).__name__
    return InputError(
        f"{path}: damaged, or holds more than weights ({reason}); it was not run: fetch the published file again"
    )


def fill(net, path: Path, arrays: dict, file_name=lambda parameter: parameter) -> None:
    """Load `arrays` into `net`, every parameter and running statistic; `file_name` maps its names to the file's.

    Raises InputError when the file is of another network.
    """
    own = {
        name: value for name, value in net.state_dict().items() if not name.endswith("num_batches_tracked")
    }
    wanted = {file_name(name): tuple(value.shape) for name, value in own.items()}
    found = {name: tuple(a.shape) for name, a in arrays.items() if not name.endswith("num_batches_tracked")}
    title = f"{path}: weights of another network than {WEIGHTS[path.name].network}"
    for name in wanted:
        if found.get(name) != wanted[name]:
            has = f"is {found[name]}" if name in found else "is missing"
            raise InputError(f"{title}: {name} {has}, need {wanted[name]}; fetch the published file")
    if extra := sorted(found.keys() - wanted.keys()):
        raise InputError(f"{title}: it also holds {extra[0]}; fetch the published file")
    net.load_state_dict({name: arrays[file_name(name)] for name in own}, strict=False)
