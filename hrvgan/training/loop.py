"""The training loop of every model: it decides when to step; the model defines what is minimised."""

import inspect
import json
import math
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hrvgan.clipstore.clips import Clips
from hrvgan.config import check_values, pick_device
from hrvgan.errors import InputError
from hrvgan.nn.base import VideoGAN
from hrvgan.progress import Bar, bar
from hrvgan.training import distributed
from hrvgan.training.ema import distance, swapped_generator, with_batch_norm_statistics
from hrvgan.training.iteration import PRECISIONS, iterations, use_bfloat16
from hrvgan.training.session import Session, begin, save_state, stop_signals


def train(
    gan: VideoGAN, clips: Clips, state: str | Path, *, steps: int = 1000, minutes: float = 0.0,
    batch_size: int = 16, accumulate: int = 1, seed: int = 0, ema: float = 0.995, lr_decay: int = 0,
    clip_grad: float = 0.0, flip: bool = False, class_balanced: bool = False, precision: str = "auto",
    device: str = "auto", log_every: int = 10, save_every: int = 100, sample_every: int = 200,
    samples_per_class: int = 2, score_every: int = 0, keep: str = "last",
    log_losses: Callable[[int, dict[str, float]], None] = lambda step, values: None,
    log_samples: Callable[[int, Tensor], None] = lambda step, clips: None,
    score: Callable[[VideoGAN], dict[str, float]] | None = None,
) -> tuple[nn.Module, list[dict]]:  # fmt: skip
    """Trains `gan` in place on `clips` for `steps` iterations in all; returns the EMA of G, and the history.

    Everything random in an iteration follows from (seed, step). So the file `state`, written every `save_every` steps
    and at SIGTERM or Ctrl-C (exit codes 143, 130), is enough to go on with the same bits, and one that is there is
    continued. Under torchrun every process takes its part of each batch; the first one writes and logs.

    Args:
        minutes: of training in all, after which it ends at the next save, done or not; 0 = no limit.
        batch_size: clips a step, of all processes and micro-batches together.
        accumulate: micro-batches a step and process, for batches that do not fit into memory.
        ema: decay of the moving average of G per step (with a warm-up: short histories average less).
        lr_decay: the step at which learning rates, falling linearly from the first step on, reach 0; 0 keeps them.
        clip_grad: the largest norm of the gradient of a phase; 0 = no limit.
        class_balanced: whether every batch shows the classes equally often, however many clips they have.
        precision: float32, bfloat16 (autocast), or auto: bfloat16 where the device multiplies it faster. A `state`
            that began with auto keeps the precision that this meant then, on whatever device it goes on.
        score_every: steps between two calls of `score`, on the EMA; its values are logged as score/<name>; 0 = none.
        keep: which EMA is returned: the `last`, or of those scored the `best`, that whose first score is lowest.
        log_losses: called every `log_every` steps with the means since the last call, and the speed.
        log_samples: called every `sample_every` steps with clips (n, T, H, W, 3) uint8 of the EMA, same z each time.

    Raises InputError for clips that do not fit the model, a `state` of another training, and when losses, gradients or
    weights are no longer finite; `state` is then the last good one.
    """
    arguments = {key: value for key, value in locals().items() if key in train.__kwdefaults__}
    check_arguments(gan, clips, arguments)
    with distributed.joined(pick_device(device)) as place, stop_signals(state) as told_to_stop:
        session = Session(gan.to(place), identity(gan, clips, **arguments), use_bfloat16(precision, place))
        begin(session, state, steps, minutes)
        progress = steps_with_progress(session, clips, arguments)
        for done in progress:
            # Report.
            whole, last = done % log_every == 0, done == steps
            if whole or last:
                values = report(session, state, whole, log_losses)
                progress.set_postfix_str(summary(values), refresh=False)
            show(session, clips, arguments, last)

            # Save.
            stop = told_to_stop(whole)
            if done % save_every == 0 or last or stop:
                save_state(state, session)
                if session.out_of_time(minutes):
                    break
            if stop and not last:
                end_at_signal(progress, done, stop)
    average = chosen_average(session, clips, keep)
    gan.G.load_state_dict(average.state_dict())
    return average, session.history + session.partial


ROWS_OF_IMBALANCE = 30  # of the history: 300 steps, if one is logged every 10

CALLBACKS = ("log_losses", "log_samples", "score")
# Arguments of `train` that change no step: a training resumes with other values of these.
FREE = (
    "steps", "minutes", "device", "log_every", "save_every", "sample_every", "samples_per_class", "score_every", "keep",
    *CALLBACKS,
)  # fmt: skip
KEEP = ("last", "best")
# Arguments that a user sets in section train; the seed stands in the run, for weights are drawn from it too.
SETTINGS = [key for key in train.__kwdefaults__ if key not in ("seed", *CALLBACKS)]


def identity(gan: VideoGAN, clips: Clips, **arguments) -> dict:
    """The identity of a training, as plain values: the model, its initial weights, the data, and those `arguments` of
    `train` (defaults included) that change what a step computes. A state resumes only under an equal identity."""
    recipe = {key: value for key, value in (train.__kwdefaults__ | arguments).items() if key not in FREE}
    values = {"model": gan.name, "net": gan.arguments, "origin": gan.origin, "data": clips.digest, **recipe}
    return json.loads(json.dumps(values))


def steps_with_progress(session: Session, clips: Clips, arguments: dict) -> Bar:
    """Iterates over the steps that `arguments` of `train` ask for beyond those done, none when its minutes are over;
    the first process shows a progress bar."""
    steps, hidden = arguments["steps"], distributed.rank() > 0
    last = session.step if session.out_of_time(arguments["minutes"]) else steps
    recipe = {key: arguments[key] for key in inspect.getfullargspec(iterations).kwonlyargs}
    trained = iterations(session, clips, last, **recipe)
    return bar(trained, "train", total=steps, initial=session.step, unit="it", hidden=hidden)


def report(
    session: Session, state: str | Path, whole: bool, log_losses: Callable[[int, dict[str, float]], None]
) -> dict[str, float]:
    """Adds the means of the last steps to the history, as a `whole` row or the partial one at the end, and returns
    them; the first process logs them. Raises InputError when one is not finite."""
    values = {**session.meter.means(), "ema/distance": distance(session.average, session.gan.G)}
    stop_if_diverged(state, session.step, values)
    row = {"step": session.step, **values}
    session.partial = [] if whole else [row]
    if whole:
        session.history.append(row)
        session.meter.clear()
        say_imbalance(session)
    if distributed.rank() == 0:
        log_losses(session.step, {**values, **session.meter.timings()})
    return values


def show(session: Session, clips: Clips, arguments: dict, last: bool) -> None:
    """Logs samples and scores of the EMA, in the first process, at the steps for which `arguments` of `train` ask."""
    if distributed.rank():
        return
    if session.step % arguments["sample_every"] == 0 or last:
        made = preview(session.gan, session.average, arguments["samples_per_class"], clips)
        arguments["log_samples"](session.step, made)
    if arguments["score_every"] and session.step % arguments["score_every"] == 0:
        arguments["log_losses"](session.step, score_average(session, clips, arguments["score"]))


def score_average(session: Session, clips: Clips, score: Callable[[VideoGAN], dict[str, float]]) -> dict[str, float]:
    """Adds what `score` makes of the EMA to the last row of the history, keeps the EMA if it is the best one so far,
    and returns the scores."""
    average = with_batch_norm_statistics(session.gan, session.average, clips)
    with swapped_generator(session.gan, average):
        values = {f"score/{name}": value for name, value in score(session.gan).items()}
    row = session.history[-1]
    row.update(values)
    if best_row(session.history) is row:
        session.best = {name: tensor.clone() for name, tensor in average.state_dict().items()}
    return values


def chosen_average(session: Session, clips: Clips, keep: str) -> nn.Module:
    """The last EMA, or the best one where that is to be kept and one was scored."""
    average = with_batch_norm_statistics(session.gan, session.average, clips)
    if keep == "best" and session.best:
        average.load_state_dict(session.best)
    return average


def best_row(history: list[dict]) -> dict | None:
    """The row whose first score is lowest, the earliest of equal ones; None if nothing was scored."""

    def first_score(row: dict) -> float:
        return next((value for key, value in row.items() if key.startswith("score/")), math.inf)

    best = min(history, key=first_score, default={})
    return best if first_score(best) < math.inf else None


def kept_step(history: list[dict], keep: str | None) -> dict[str, int]:
    """What model.json says of weights that `keep` "best" has chosen: {"weights_of_step": ...}, else nothing."""
    row = best_row(history) if keep == "best" else None
    return {"weights_of_step": row["step"]} if row else {}


def say_imbalance(session: Session) -> None:
    """Prints, once it has lasted for `ROWS_OF_IMBALANCE` rows of the history, that D has won or cannot tell."""
    rows, before = (session.history[:end][-ROWS_OF_IMBALANCE:] for end in (None, -1))
    wrong, known = (len(last) == ROWS_OF_IMBALANCE and session.gan.imbalance(last) for last in (rows, before))
    if wrong and not known and distributed.rank() == 0:
        print(f"\nwarning: step {session.step}: {wrong}", file=sys.stderr)


def end_at_signal(progress: Bar, step: int, number: int) -> None:
    """Ends the program, saved at `step`, as a shell reports a program that this signal has ended."""
    progress.close()
    if distributed.rank() == 0:
        name = signal.Signals(number).name
        print(f"stopped by {name}; the same command goes on from step {step}", file=sys.stderr)
    sys.exit(128 + number)


def preview(gan: VideoGAN, average: nn.Module, per_class: int, clips: Clips) -> Tensor:
    """Preview clips, uint8 (n, T, H, W, 3): `per_class` of each class shown, generated by the EMA from a fixed seed;
    for a prediction model, continuations of training clips."""
    labels = gan.labels_to_show()
    count = per_class * max(len(labels), 4)
    with swapped_generator(gan, with_batch_norm_statistics(gan, average, clips)):
        if not gan.context:
            return gan.sample(count, torch.tensor(labels)[torch.arange(count) % len(labels)], seed=0)
        numbers = np.linspace(0, len(clips) - 1, count).astype(int)
        real, c = torch.from_numpy(clips.read(numbers)), torch.from_numpy(clips.labels[numbers])
        return gan.predict(real, c, seed=0)


def check_arguments(gan: VideoGAN, clips: Clips, arguments: dict) -> None:
    """Raises InputError for `arguments` of `train` that are wrong by themselves, or for this model and these clips."""
    check_values("train.", train, arguments)
    check_clips(gan, clips, arguments["batch_size"])
    check_settings(gan, arguments)
    if (every := arguments["score_every"]) and not arguments["score"]:
        raise InputError(f"train.score_every {every}: no reference to score by is given (`hrvgan train --reference`)")


def check_clips(gan: VideoGAN, clips: Clips, batch_size: int) -> None:
    """Raises InputError for clips of another size or other classes than the model's, or fewer than a batch."""
    frames, height = clips.shape[:2]
    if height != gan.size or frames < gan.num_frames:
        raise InputError(
            f"{clips.folder}: clips of {frames} frames of {height} px, but the model makes {gan.num_frames} frames of "
            f"{gan.size} px; set the size of one to the other's, and extract.num_frames to {gan.num_frames} or more"
        )
    if gan.num_classes not in (0, clips.num_classes):
        raise InputError(f"{clips.folder}: {clips.num_classes} classes, but the model has {gan.num_classes}")
    if len(clips) < batch_size:
        raise InputError(f"{clips.folder}: {len(clips)} clips to train on; lower train.batch_size ({batch_size})")


def check_settings(gan: VideoGAN, settings: dict) -> None:
    """Raises InputError for arguments of `train` that contradict each other, as far as that is known without clips."""
    batch_size, precision, steps = settings["batch_size"], settings["precision"], settings["steps"]
    lr_decay, log_every, save_every = settings["lr_decay"], settings["log_every"], settings["save_every"]
    count = distributed.world_size() * settings["accumulate"]
    if batch_size % count:
        raise InputError(
            f"train.batch_size ({batch_size}) must be a multiple of {count}: "
            f"{distributed.world_size()} processes, train.accumulate {settings['accumulate']}"
        )
    if gan.in_pairs and batch_size // count % 2:
        raise InputError(
            f"train.batch_size ({batch_size}): each part of a step has {batch_size // count} clips, and the model "
            f"compares clips in pairs (ms_weight); take a multiple of {2 * count}, or set ms_weight to 0 in net"
        )
    if precision not in PRECISIONS:
        raise InputError(f"train.precision {precision!r} is not known; choose one of {', '.join(PRECISIONS)}")
    if 0 < lr_decay < steps:
        raise InputError(
            f"train.lr_decay: learning rates are 0 from step {lr_decay} on, but train.steps is {steps}; raise lr_decay "
            "to at least as many steps, or set it to 0 to keep the rates constant"
        )
    if settings["keep"] not in KEEP:
        raise InputError(f"train.keep {settings['keep']!r} is not known; choose one of {', '.join(KEEP)}")
    if settings["keep"] == "best" and not settings["score_every"]:
        raise InputError("train.keep best: nothing is scored; set train.score_every, or keep to last")
    if settings["score_every"] % log_every:
        raise InputError(
            f"train.score_every ({settings['score_every']}) must be a multiple of train.log_every ({log_every}), "
            "so that scores stand in rows of the history"
        )
    if save_every % log_every:
        raise InputError(
            f"train.save_every ({save_every}) must be a multiple of train.log_every ({log_every}), "
            "so that a state holds whole rows of the history"
        )


def stop_if_diverged(state: str | Path, step: int, values: dict[str, float]) -> None:
    """Raises InputError when one of `values` is not finite."""
    wrong = ", ".join(key for key, value in values.items() if not math.isfinite(value))
    if wrong:
        kept = f"{state} is the last good state" if Path(state).exists() else "no state was saved before"
        raise InputError(
            f"training diverged by step {step}: {wrong} not finite; {kept}; lower the learning rates, set "
            "train.clip_grad, or raise the weight of the gradient penalty in params.yaml"
        )


def summary(values: dict[str, float]) -> str:
    """Losses as text for the progress bar."""
    return "  ".join(f"{key[5:]} {value:.2f}" for key, value in values.items() if key.startswith("loss/"))
