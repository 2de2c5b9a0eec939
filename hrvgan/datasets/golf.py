"""Golf: 603,776 stabilised clips of golf courses (Vondrick et al. 2016, "Generating Videos with Scene Dynamics").

Each clip is one jpg, 16 to 34 frames of 128x128 px stacked vertically; there are no classes. The archive, 131
GB, is read as a stream that ends after `max_clips`: nothing beyond is transferred or stored.
"""

from itertools import islice
from pathlib import Path

from hrvgan.errors import InputError
from hrvgan.extraction.videos import Video
from hrvgan.fetching.archives import unpack_tar
from hrvgan.fetching.download import downloads, stream
from hrvgan.files import PublishedFile
from hrvgan.progress import bar

TAR = PublishedFile(
    "golf.tar.bz2",
    ("http://data.csail.mit.edu/videogan/golf.tar.bz2",),  # there is no https, and no hash
    licence="for research; videos are from Flickr",
)
MAX_BYTES_PER_CLIP = 4_000_000  # on average; actual clips are about 200 kB
MAX_FILES_PER_CLIP = 1_000  # including files that are not clips (lists, videos without a clip)


def fetch(out: Path, *, max_clips: int = 20_000, url: str = TAR.urls[0]) -> list[Video]:
    """Write the first `max_clips` clips of the archive at `url` under `out`.

    Clips of one video, which are in one folder, are one group. Transferred bytes are kept, so that another run,
    also for more clips, continues from there. Raises InputError for a broken or hostile archive.
    """
    if max_clips < 1:
        raise InputError(f"golf: max_clips {max_clips}; need at least 1")
    file = PublishedFile(TAR.name, (url,))
    archive = downloads() / file.name
    if not archive.exists():  # Errors then name the partial file, which is read until it is deleted.
        archive = archive.with_name(f"{file.name}.part")
    limits = {"max_bytes": max_clips * MAX_BYTES_PER_CLIP, "max_members": max_clips * MAX_FILES_PER_CLIP}
    with stream(file, downloads()) as source:
        clips = unpack_tar(source, archive, out, **limits, target_path=_only_clips)
        paths = list(bar(islice(clips, max_clips), "golf", total=max_clips, unit="clip"))
    if not paths:
        raise InputError(f"{archive}: no jpg in it; correct the option `url`")
    names = [path.relative_to(out) for path in paths]  # frames-stable-many/<video>/0001.jpg
    return [Video(out / name, "", name.parent.as_posix(), video_id=name.as_posix()) for name in names]


def _only_clips(name: str) -> str | None:
    return name if name.lower().endswith(".jpg") else None


def upstream(url: str = TAR.urls[0], **_) -> list[PublishedFile]:
    """Published files whose change would be new data."""
    return [PublishedFile(TAR.name, (url,))]
