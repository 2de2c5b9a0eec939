"""Run an experiment: `dvc exp run -S ...` with settings that are checked before anything runs.

    python -m pipeline.experiment "train.steps=4000 train.lr_decay=4200"

If a setting is wrong, the experiment fails or is stopped, params.yaml and what it made are as they were before.
"""

import argparse
import re
import signal
import subprocess
import sys

from hrvgan.errors import InputError, one_sentence
from hrvgan.files import write_text
from pipeline import params
from pipeline.checks import check

# A setting goes on over quoted text, and over spaces that no other setting follows.
SETTING = re.compile(r"""(?:"[^"]*"|'[^']*'|\S|\s++(?!~|\+{0,2}[\w.]+=))+""")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.experiment", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument(
        "settings", nargs="*", metavar="KEY=VALUE", help="a value of params.yaml; + before a new key"
    )
    texts = parser.parse_args().settings
    settings = [setting.strip() for text in texts for setting in SETTING.findall(text)]
    with one_sentence():
        before = params.text_of(params.FILE)
        try:
            apply(settings)
            check()
            overridden = overrides(settings)
        finally:
            write_text(params.FILE, before)
        print("\n".join([params.active(), *overridden]), flush=True)
        params.keep_inactive()
    code = run(["dvc", "exp", "run", *(word for setting in settings for word in ("-S", setting))])
    if code:
        write_text(params.FILE, before)
        params.restore()
        sys.exit(f"the experiment has failed; {params.FILE} is as before")


def apply(settings: list[str]) -> None:
    """Write the settings, in Hydra's grammar, into params.yaml. Raises InputError for those that do not fit it."""
    from dvc.exceptions import InvalidArgumentError
    from dvc.utils.hydra import apply_overrides

    try:
        apply_overrides(params.FILE, settings)
    except InvalidArgumentError as error:
        reason = " ".join(str(error.__cause__ or error).split())
        raise InputError(
            f"{params.FILE}: {' '.join(settings)}: {reason}; a key that is not there yet needs a + before it"
        ) from error


def overrides(settings: list[str]) -> list[str]:
    """Sentences on those of `settings` that a run overrides, which change nothing there."""
    runs, sentences = params.load()["runs"], []
    for setting in settings:
        key = setting.partition("=")[0].lstrip("+~")
        section, _, name = key.partition(".")
        for run, entry in runs.items():
            if section in params.OVERRIDABLE and name in entry[section]:
                value = entry[section][name]
                sentences.append(f"runs.{run}.{key} ({value}) overrides {key}: set runs.{run}.{key} instead")
    return sentences


def run(command: list[str]) -> int:
    """Exit code of the command; Ctrl-C reaches it, and this program waits for its end."""
    # A handler, unlike SIG_IGN, is not inherited.
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        return subprocess.run(command).returncode
    finally:
        signal.signal(signal.SIGINT, before)


if __name__ == "__main__":
    main()
