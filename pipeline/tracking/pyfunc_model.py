"""A released model in the form that `mlflow.pyfunc.load_model` and `mlflow models serve` read.

MLflow copies this file and the package hrvgan beside the weights: it loads code and safetensors, no pickle.
"""

import importlib.metadata
import json
import re
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from mlflow.models import ModelSignature, set_model
from mlflow.pyfunc import PythonModel, save_model
from mlflow.types import ColSpec, Schema, TensorSpec

import hrvgan

# A row asks for what `hrvgan sample --class --seed --truncation --num` draws; class "": all in turn.
DEFAULTS = {"class": "", "seed": 0, "psi": 1.0, "count": 1}
TYPES = {"class": "string", "seed": "long", "psi": "double", "count": "long"}


class VideoModel(PythonModel):
    """Rows with the columns of DEFAULTS, any of which may be absent -> their clips, uint8 (N, T, H, W, 3)."""

    def load_context(self, context) -> None:
        self.gan = hrvgan.load(context.artifacts["model"])

    def predict(self, context, model_input: pd.DataFrame, params: dict | None = None):
        return np.concatenate([self.draw(DEFAULTS | row) for row in model_input.to_dict("records")])

    def draw(self, row: dict) -> np.ndarray:
        gan, name, count = self.gan, row["class"], row["count"]
        labels = torch.full((count,), gan.label(name)) if name else gan.cycle_labels(count)
        return gan.draw(gan.latent(count, row["seed"]), labels, psi=row["psi"]).numpy()


def save(folder: Path, out: Path) -> None:
    """Write the released model in `folder` to the new folder `out` as a python_function model."""
    model = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    inputs = Schema([ColSpec(kind, name, required=False) for name, kind in TYPES.items()])
    clips = Schema([TensorSpec(np.dtype(np.uint8), (-1, *model["clip_shape"]))])
    with tempfile.TemporaryDirectory() as code:
        package, ignore = Path(hrvgan.__file__).parent, shutil.ignore_patterns("__pycache__", "pretrained")
        save_model(
            out,
            python_model=__file__,
            artifacts={"model": str(folder.absolute())},
            code_paths=[shutil.copytree(package, f"{code}/hrvgan", ignore=ignore)],
            signature=ModelSignature(inputs, clips),
            input_example=pd.DataFrame([DEFAULTS | {"class": (model["classes"] or [""])[0]}]),
            pip_requirements=requirements(),
        )


def requirements() -> list[str]:
    """What hrvgan needs, without its extras, in the versions that are installed."""
    needed = [line for line in importlib.metadata.requires("hrvgan") if "extra ==" not in line]
    names = [re.match(r"[\w.-]+", line)[0] for line in needed]
    # The part after "+" names a build, such as torch's for a GPU, that the package index does not have.
    return [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in names]


set_model(VideoModel())
