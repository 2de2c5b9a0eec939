"""Golf: 603,776 stabilised clips of golf courses (Vondrick et al. 2016, "Generating Videos with Scene Dynamics").

Each clip is one jpg, 16 to 34 frames of 128x128 px stacked vertically; there are no classes. The archive, 131
GB, is read as a stream that ends after `max_clips`: nothing beyond is transferred or stored.
"""

from pathlib import Path, PurePosixPath

from hrvgan.errors import InputError
from hrvgan.extraction.videos import Video
from hrvgan.fetching.archives import Guard, inside, readable, tar_members, write
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
    file, names = PublishedFile(TAR.name, (url,)), []
    archive = downloads() / file.name
    if not archive.exists():  # Errors then name the partial file, which is read until it is deleted.
        archive = archive.with_name(f"{file.name}.part")
    guard = Guard(
        archive, max_bytes=max_clips * MAX_BYTES_PER_CLIP, max_members=max_clips * MAX_FILES_PER_CLIP
    )
    with (
        stream(file, downloads()) as source,
        readable(archive),
        bar(desc="golf", total=max_clips, unit="clip") as progress,
    ):
        for member in map(guard.check, tar_members(source)):
            if not member.name.lower().endswith(".jpg"):
                continue
            name = inside(member.name, archive)  # frames-stable-many/<video>/0001.jpg
            write(member, out / name, archive)
            names.append(name.as_posix())
            progress.update()
            if len(names) == max_clips:
                break
    if not names:
        raise InputError(f"{archive}: no jpg in it; correct the option `url`")
    return [Video(out / name, "", PurePosixPath(name).parent.as_posix(), video_id=name) for name in names]


def upstream(url: str = TAR.urls[0], **_) -> list[PublishedFile]:
    """Published files whose change would be new data."""
    return [PublishedFile(TAR.name, (url,))]
