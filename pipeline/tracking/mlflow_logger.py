"""What a training says while it runs, on its way to MLflow."""

import os
import platform
import queue
import sys
import threading
from pathlib import Path

from hrvgan.errors import first_line
from pipeline.resume_state import kept
from pipeline.tracking import connect, describe, find, log_curves, log_release, new_run, uri

PATIENCE = 120  # seconds to wait at the end of a training while nothing can be sent


class Recorder:
    """Sends to MLflow in the background what a training has to say. A failure is said once and stops nothing: the
    run then never gets its digest, and the next stage records it anew from the released model."""

    def __init__(self, run: str, arguments: dict, device: str, resume_file: Path):
        self.run, self.arguments, self.resume_file, self.device = run, arguments, resume_file, device
        # What the training that goes on has reported so far: now, before it writes a newer state.
        self.past = kept(resume_file.with_name("state.pt"), "history", [])
        self.failed, self.jobs = False, queue.Queue()
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()
        self.jobs.put(self._start)

    def losses(self, step: int, values: dict[str, float]) -> None:
        self.jobs.put(lambda: log_curves(self.client, self.id, [{"step": step, **values}]))

    def samples(self, step: int, clips) -> None:
        """clips: uint8 (N, T, H, W, 3), drawn with the same z each time: one picture of a series, a row a clip."""
        from hrvgan.video.grids import filmstrips

        picture = filmstrips(clips.numpy(), enlarge=max(1, 64 // clips.shape[2]))
        self.jobs.put(lambda: self.client.log_image(self.id, picture, key="samples", step=step))

    def finish(self, folder: Path) -> None:
        """Records the released model and waits until everything is sent."""
        self.jobs.put(lambda: log_release(self.client, self.id, folder))
        self._end("FINISHED")

    def abandon(self) -> None:
        self._end("FAILED")

    def _end(self, status: str) -> None:
        self.jobs.put(lambda: self.client.set_terminated(self.id, status))
        self.jobs.put(None)
        left = -1
        while self.thread.is_alive() and self.jobs.qsize() != left:  # as long as something is sent
            left = self.jobs.qsize()
            self.thread.join(PATIENCE)
        if self.thread.is_alive() and not self.failed:
            self._give_up(f"nothing sent for {PATIENCE} seconds")

    def _start(self) -> None:
        """Goes on with the record of a training that was killed; marks others of this name that died here without a
        word: not those that run beside it, as in a queue of experiments, nor another machine's."""
        self.client, experiment = connect()
        known = self._known(experiment)
        for other in find(self.client, experiment, {"run": self.run}):
            if other.info.status == "RUNNING" and other.info.run_id != known and is_dead(other.data.tags):
                self.client.set_terminated(other.info.run_id, "KILLED")
        if known:
            self.id = known
            self.client.update_run(known, "RUNNING")
            self.client.set_tag(known, "process", this_process())
            return
        tags = {"device": self.device, "process": this_process()}
        self.id = new_run(self.client, experiment, self.run, self.arguments, tags)
        log_curves(self.client, self.id, self.past)
        self.resume_file.parent.mkdir(parents=True, exist_ok=True)
        self.resume_file.write_text(self.id)

    def _known(self, experiment: str) -> str:
        """The id of the record to go on with. "" for a new one, as where other steps are asked for than were then: the
        params of a record never change, so that of the shorter training stays beside that of the longer one."""
        known = self.resume_file.read_text() if self.resume_file.exists() else ""
        params, _ = describe(self.run, self.arguments)
        runs = find(self.client, experiment, {"run": self.run}) if known else []
        return next((known for run in runs if run.info.run_id == known and run.data.params == params), "")

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
    """Its number and its machine, as a tag."""
    return f"{os.getpid()}@{platform.node()}"


def is_dead(tags: dict[str, str]) -> bool:
    """Whether the process of a record ran on this machine and is gone."""
    number, _, machine = tags.get("process", "").partition("@")
    if machine != platform.node():
        return False
    try:
        os.kill(int(number), 0)  # sends nothing
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # It lives, as somebody else's.
    return False
