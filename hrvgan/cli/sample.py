"""Commands `hrvgan sample`, `interpolate` and `predict`: clips from a released model."""

from pathlib import Path

from hrvgan.errors import InputError

SUFFIXES = (".mp4", ".gif", ".png", ".npz")


def check_output(out: Path) -> None:
    """Raises InputError for a file that clips cannot be written to, before they are drawn."""
    if out.suffix not in SUFFIXES:
        suffix = out.suffix or "a file without suffix"
        raise InputError(f"{out}: cannot write {suffix}; use one of {', '.join(SUFFIXES)}")


def sample(
    model: Path, *, out: Path, seed: int = 0, device: str = "auto", class_name: str = "", num: int = 16,
    truncation: float = 1.0, format: str = "", frames: int | None = None,
) -> None:  # fmt: skip
    """Draw NUM clips as one video grid (.mp4, .gif), filmstrips (.png) or arrays (.npz), by the suffix of OUT. Without
    a suffix OUT is a folder: a file a clip by --format (mp4 by default), their classes in clips.csv; the same command
    continues it."""
    import torch

    from hrvgan.files import file_digest
    from hrvgan.models import load
    from hrvgan.nn.checkpoint import released_folder
    from hrvgan.sampling.export import FORMATS, export_clips
    from hrvgan.sampling.samples import check_grid, long_clips
    from hrvgan.video.grids import drawable

    as_file = out.suffix in SUFFIXES and not out.is_dir()
    if format not in ("", *FORMATS):
        raise InputError(f"--format {format!r} is unknown; known: {', '.join(FORMATS)}")
    if format and as_file:
        raise InputError(f"{out}: names a file, --format is for a folder of clips; leave out one of both")
    if format or not out.suffix or out.is_dir():
        gan, weights = load(model, device), file_digest(released_folder(model) / "model.safetensors")
        export_clips(gan, out, num, weights=weights, format=format or "mp4", class_name=class_name,
                     seed=seed, truncation=truncation, frames=frames or 0)  # fmt: skip
        print(out)
        return
    check_output(out)
    gan = load(model, device)
    folder = f"name a folder for a file a clip: --out {out.with_suffix('')}/ --format {out.suffix[1:]}"
    check_grid(out, num, gan.size, folder)
    labels = torch.full((num,), gan.label(class_name)) if class_name else gan.cycle_labels(num)
    if frames:
        clips = long_clips(gan, labels, frames, seed, truncation)
    else:
        clips = gan.draw(gan.latent(num, seed), labels, psi=truncation).numpy()
    captions = drawable(gan.titles(labels.tolist()), gan.classes)
    write(out, clips, gan, labels.numpy(), captions, {0: "generated"})


def interpolate(
    model: Path, *, out: Path, seed: int = 0, device: str = "auto", class_name: str = "", num: int = 8,
    to_class: str = "", to_seed: int | None = None, videos: list[Path] | None = None, refine: int = 200,
    truncation: float = 1.0,
) -> None:  # fmt: skip
    """Draw NUM clips evenly on the line between two latents (Fig. 2 and 3 of the paper), from one class to another
    if asked. With two real VIDEOs, between the latents found for their first frames; the real clips stand at the ends.
    """
    import numpy as np
    import torch

    from hrvgan.clipstore.layout import to_float
    from hrvgan.models import load
    from hrvgan.sampling.samples import check_grid, invert, step_names, walk
    from hrvgan.video.grids import drawable

    check_output(out)
    if videos and to_seed is not None:
        raise InputError("--to-seed: a walk between two real videos starts and ends at them; leave out one of both")
    gan = load(model, device)
    check_grid(out, num + 2 * bool(videos), gan.size, "lower --num")
    labels = [gan.label(name) if name else 0 for name in (class_name, to_class or class_name)]
    if videos:
        real = np.stack([first_frames(gan, video, gan.num_frames, gan.num_frames) for video in videos])
        z = invert(gan, to_float(torch.from_numpy(real)), torch.tensor(labels), steps=refine, seed=seed).cpu()
    else:
        z = gan.latent(2, seed)
        if to_seed is not None:
            z[1] = gan.latent(1, to_seed)[0]
    clips = walk(gan, (z[0], labels[0]), (z[1], labels[1]), num, truncation)
    captions = step_names(num)
    if videos:
        clips, captions = np.concatenate([real[:1], clips, real[1:]]), ["real", *captions, "real"]
    for end, title in zip((0, -1), drawable(gan.titles(labels), gan.classes), strict=True):
        captions[end] = f"{captions[end]} {title}".strip()
    nearer = np.linspace(0, 1, len(clips)) > 0.5  # A clip between two classes has the label of the nearer.
    write(out, clips, gan, np.where(nearer, labels[1], labels[0]), captions, {0: "interpolation, generated"})


def predict(
    model: Path, *, out: Path, seed: int = 0, device: str = "auto", class_name: str = "", num: int = 3, video: Path
) -> None:  # fmt: skip
    """Draw NUM continuations of the first frames of VIDEO, by a model of task predict. Where the video is as long as
    they are, it is the first clip of OUT."""
    import numpy as np
    import torch

    from hrvgan.models import load
    from hrvgan.sampling.samples import check_grid

    check_output(out)
    gan = load(model, device)
    check_grid(out, num + 1, gan.size, "lower --num")
    if not gan.context:
        raise InputError(f"{model}: does not predict; train a model with task: predict")
    if gan.num_classes and not class_name:
        raise InputError(f"{model}: name the class of the video by --class; known: {', '.join(gan.classes)}")
    real = first_frames(gan, video, gan.context, gan.num_frames)
    labels = torch.full((num,), gan.label(class_name) if class_name else 0)
    clips = gan.predict(torch.from_numpy(real).expand(num, *real.shape), labels, seed).numpy()
    captions = [f"predicted {number}" for number in range(1, num + 1)]
    if len(real) == gan.num_frames:
        clips, captions = np.concatenate([real[None], clips]), ["real", *captions]
    heads = {0: "frames given", gan.context: "frames predicted"}
    write(out, clips, gan, np.full(len(clips), labels[0]), captions, heads)


def first_frames(gan, video: Path, least: int, most: int):
    """uint8 (T, size, size, 3): the first `most` frames of a video, at least `least`, as many a second and made square
    in the same way as the clips that `gan` was trained on."""
    import numpy as np

    from hrvgan.video.decode import decode
    from hrvgan.video.io import is_strip, read_frames

    frames = []
    if is_strip(video):  # Which says nothing about time: every n-th frame, as in extraction.
        every, rate = read_frames(video, gan.size)
        frames = list(every[:: max(1, round(rate / gan.fps))][:most])
    else:
        decode(video, lambda n: n < most, lambda n, picture: frames.append(picture(gan.size, gan.crop)), fps=gan.fps)
    if len(frames) < least:
        raise InputError(f"{video}: {len(frames)} frames at {gan.fps:g} a second, need {least}; take a longer video")
    return np.stack(frames)


def write(out: Path, clips, gan, labels, captions: list[str], heads: dict[int, str]) -> None:
    """Clips uint8 (N, T, H, W, 3) of `gan`; an .npz has their labels too, and the names of these; pictures and videos
    have a caption a clip, and above them what is shown from a frame on, `heads`."""
    import numpy as np

    from hrvgan.files import atomic_path
    from hrvgan.sampling.samples import grid, strips, titled
    from hrvgan.video.grids import write_image, write_legend
    from hrvgan.video.io import write_video

    if out.suffix in (".mp4", ".gif"):
        write_video(out, titled(grid(clips, captions=captions), heads), fps=gan.fps)
    elif out.suffix == ".png":
        write_image(out, strips(clips, captions, heads))
    else:
        with atomic_path(out) as temporary:
            classes = np.array(gan.classes if gan.num_classes else [], dtype=np.str_)
            np.savez_compressed(temporary, frames=clips, labels=labels, classes=classes, fps=gan.fps)
    print(out)
    if out.suffix != ".npz" and (path := write_legend(out, gan.titles(labels.tolist()), gan.classes)):
        print(path)


MODEL = {
    "model": "folder of a released model, such as models/laptop",
    "out": f"a file that ends in one of {', '.join(SUFFIXES)}",
    "num": "number of clips",
}
TRUNCATION = "psi; below 1: less variety, fewer failures"
COMMANDS = {
    sample: ("draw clips from a released model", MODEL | {
        "class_name": "draw this class only",
        "truncation": TRUNCATION,
        "format": "write a file a clip into the folder OUT: mp4, gif, png (frames) or npz",
        "frames": "longer clips, by models with latent: sequence",
    }),
    interpolate: ("walk between two latents, classes or real videos", MODEL | {
        "class_name": "the class; the first one by default",
        "to_class": "the class at the end of the walk",
        "to_seed": "the seed at the end of the walk",
        "videos": {"nargs": 2, "metavar": "VIDEO", "help": "walk between two real videos"},
        "refine": "steps by which the latents of real videos are refined",
        "truncation": TRUNCATION,
    }),
    predict: ("draw how a video goes on", MODEL | {
        "class_name": "the class of the video",
        "video": "a video; its first frames are what is seen",
    }),
}  # fmt: skip
