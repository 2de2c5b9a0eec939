"""Background MLflow logger for the training loop."""

import os
import platform
import queue
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import psutil

from hrvgan.errors import first_line
from hrvgan.training.session import read_state
from hrvgan.video.grids import filmstrips, tile
from hrvgan.video.io import write_video
from pipeline.tracking import connect, describe, find, log_metrics, log_release, new_run, uri

PATIENCE = 120  # seconds to wait at the end of a training while nothing can be sent
SAMPLED_EVERY = 30  # seconds between two measurements of CPU, memory, disk, network and GPU
ROW = 8  # clips in a row of the videos of samples


class MLflowLogger:
    """Sends losses and samples to MLflow from a thread of its own, for the length of a block at whose end it sends the
    released model and waits until everything is sent. The first failure is reported and ends the logging, not the
    training: the MLflow run then never gets its digest, and the next stage records the run anew from the released
    model."""

    def __init__(self, run: str, arguments: dict, device: str, fps: float, resume_file: Path):
        self.run, self.arguments, self.device, self.fps = run, arguments, device, fps
        self.resume_file = resume_file
        # History of the training that is resumed, read before it writes a newer state.
        self.past = read_state(resume_file.with_name("state.pt"), "history", [])
        self.failed, self.jobs = False, queue.Queue()
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()
        self.jobs.put(self._start)

    def losses(self, step: int, values: dict[str, float]) -> None:
        self.jobs.put(lambda: log_metrics(self.client, self.id, [{"step": step, **values}]))

    def samples(self, step: int, clips) -> None:
        """clips: uint8 (N, T, H, W, 3), drawn with the same z each time; logged as one film strip a clip, and as
        a video of all."""
        self.jobs.put(lambda: self._send_samples(step, clips.numpy()))

    def __enter__(self) -> "MLflowLogger":
        return self

    def __exit__(self, failure: type[BaseException] | None, *_) -> None:
        if failure is None:
            self.jobs.put(lambda: log_release(self.client, self.id, Path("models") / self.run))
        self._end("FAILED" if failure else "FINISHED")

    def _end(self, status: str) -> None:
        self.jobs.put(lambda: self.monitor.finish())
        self.jobs.put(lambda: self.client.set_terminated(self.id, status))
        self.jobs.put(None)
        left = -1
        while self.thread.is_alive() and self.jobs.qsize() != left:  # as long as something is sent
            left = self.jobs.qsize()
            self.thread.join(PATIENCE)
        if self.thread.is_alive() and not self.failed:
            self._give_up(f"nothing sent for {PATIENCE} seconds")

    def _start(self) -> None:
        """Continue the MLflow run of a resumed training, or create one. Runs of this name that are still RUNNING
        although their process has died on this machine are marked KILLED."""
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        self.client, experiment = connect()
        runs = find(self.client, experiment, {"run": self.run})
        resumed = self._resumed(runs)
        for run in runs:
            if run.info.status == "RUNNING" and run.info.run_id != resumed and is_dead(run.data.tags):
                self.client.set_terminated(run.info.run_id, "KILLED")
        if resumed:
            self.id = resumed
            self.client.update_run(resumed, "RUNNING")
            self.client.set_tag(resumed, "process", this_process())
        else:
            tags = {"device": self.device, "process": this_process()}
            self.id = new_run(self.client, experiment, self.run, self.arguments, tags)
            log_metrics(self.client, self.id, self.past)
            self.resume_file.parent.mkdir(parents=True, exist_ok=True)
            self.resume_file.write_text(self.id)
        self.monitor = SystemMetricsMonitor(self.id, sampling_interval=SAMPLED_EVERY, resume_logging=True)
        self.monitor.start()

    def _send_samples(self, step: int, clips: np.ndarray) -> None:
        factor = max(1, 64 // clips.shape[2])
        self.client.log_image(self.id, filmstrips(clips, enlarge=factor), key="samples", step=step)
        with tempfile.TemporaryDirectory() as folder:
            video = Path(folder, f"samples-{step:06d}.mp4")
            write_video(video, tile(clips, ROW, enlarge=factor), fps=self.fps)
            self.client.log_artifact(self.id, str(video), "videos")

    def _resumed(self, runs: list) -> str:
        """The id of the MLflow run to continue, or "" for a new one. The params of a run never change, so a training
        with another number of steps gets a run of its own."""
        recorded = self.resume_file.read_text() if self.resume_file.exists() else ""
        values = describe(self.run, self.arguments)[0] if recorded else {}
        same = [run for run in runs if run.info.run_id == recorded and run.data.params == values]
        return recorded if same else ""

    def _work(self) -> None:
        while job := self.jobs.get():
            if self.failed:
                continue
            try:
                job()
            except Exception as error:  # Whatever the tracker's trouble is, the training goes on.
                self._give_up(first_line(error))

    def _give_up(self, reason: str) -> None:
        self.failed = True
        sys.stderr.write(
            f"\nwarning: MLflow at {uri()} does not answer ({reason}); training goes on, and "
            f"`python -m pipeline.tracking record {self.run}` completes the record later\n"
        )


def this_process() -> str:
    """Process id and machine, as a tag."""
    return f"{os.getpid()}@{platform.node()}"


def is_dead(tags: dict[str, str]) -> bool:
    """True if the process that wrote the MLflow run ran on this machine and has ended."""
    number, _, machine = tags.get("process", "").partition("@")
    return machine == platform.node() and not psutil.pid_exists(int(number))
