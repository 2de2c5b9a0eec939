"""video/io.py against frames that we know, and against ffmpeg's own program."""

import importlib.util
import warnings

import av
import imageio_ffmpeg
import numpy as np
import pytest
from PIL import ExifTags, Image

from hrvgan.video import decode, grids
from hrvgan.video.grids import tile
from hrvgan.video.io import FrameCountWarning, VideoError, encode, probe, read_frames, write_video
from tests import processes

XVID = {"vcodec": "mpeg4", "vtag": "xvid", "pix_fmt": "yuv420p", "bf": 2, "q:v": 3}


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(256, size=shape, dtype=np.uint8)


def moving_square(num_frames=40, height=48, width=64):
    """A bright square that jumps a pixel a frame over soft noise, so that no two frames are equal."""
    frames = np.full((num_frames, height, width, 3), 40, np.uint8) + noise(num_frames, height, width, 3) // 16
    for time, frame in enumerate(frames):
        frame[16:32, time % 48 : time % 48 + 16] = (230, 60, 20)
    return frames


@pytest.fixture(scope="module")
def xvid(tmp_path_factory):
    """An avi like UCF101's: xvid, B-frames, 4:3, 29.97 fps."""
    path = tmp_path_factory.mktemp("xvid") / "v.avi"
    encode(path, moving_square(), fps=30000 / 1001, **XVID)
    return path


@pytest.mark.parametrize(("name", "codec", "pix_fmt"), [("a.avi", "huffyuv", "rgb24"), ("a.mkv", "ffv1", "bgr0")])
def test_lossless_videos_come_back_frame_by_frame(tmp_path, name, codec, pix_fmt):
    frames = noise(23, 37, 51, 3)  # Odd sizes, and a number of frames that no key frame interval divides.
    encode(tmp_path / name, frames, fps=12.5, vcodec=codec, pix_fmt=pix_fmt)
    read, fps = read_frames(tmp_path / name)
    np.testing.assert_array_equal(read, frames)
    assert fps == 12.5


def test_xvid_with_b_frames_keeps_every_frame_once(xvid):
    frames, fps = read_frames(xvid)
    assert frames.shape == (40, 48, 64, 3)
    assert fps == pytest.approx(29.97, abs=0.001)
    lefts = (frames[:, 24, :, 0] > 130).argmax(axis=1)  # where the square begins
    np.testing.assert_array_equal(lefts, np.arange(40))


@pytest.mark.parametrize("crop", [True, False])
def test_resizing_gives_the_bytes_of_the_ffmpeg_program(xvid, crop):
    chain = ",".join("=".join(item) for item in decode.filters(32, crop))
    chain = chain.replace("gbrp", "rgb24")  # The program may take the slower way to the same numbers.
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", xvid, "-vf", chain, "-fps_mode", "passthrough"]
    raw = processes.run([*command, "-f", "rawvideo", "-"], text=False).stdout
    expected = np.frombuffer(raw, np.uint8).reshape(-1, 32, 32, 3)
    np.testing.assert_array_equal(read_frames(xvid, 32, crop)[0], expected)


def test_cover_and_crop_cuts_the_sides_and_squash_keeps_them(tmp_path):
    frames = np.zeros((3, 64, 96, 3), np.uint8)
    frames[..., 1] = 200
    frames[:, :, :16], frames[:, :, 80:] = (200, 0, 0), (0, 0, 200)
    encode(tmp_path / "a.avi", frames, fps=10, vcodec="huffyuv", pix_fmt="rgb24")
    covered, squashed = (read_frames(tmp_path / "a.avi", 32, crop)[0] for crop in (True, False))
    assert (covered[:, :, 2:-2] == (0, 200, 0)).all()  # Bicubic overshoots beside an edge.
    assert (squashed[:, :, :3] == (200, 0, 0)).all()
    assert (squashed[:, :, -3:] == (0, 0, 200)).all()


def test_probe(xvid, tmp_path):
    assert probe(xvid) == (64, 48, pytest.approx(29.97, abs=0.001), 40)
    Image.fromarray(noise(8, 40, 3)).save(tmp_path / "strip.png")
    assert probe(tmp_path / "strip.png") == (8, 8, 25.0, 5)


def test_a_cut_file_is_an_error_that_counts(xvid, tmp_path):
    cut = tmp_path / "cut.avi"
    cut.write_bytes(xvid.read_bytes()[: xvid.stat().st_size * 4 // 5])
    with pytest.raises(VideoError, match=r"cut\.avi: \d+ of 40 frames decode"):
        read_frames(cut)


def test_a_header_that_is_off_by_one_is_a_warning(xvid, tmp_path):
    data = bytearray(xvid.read_bytes())
    length = data.index(b"strh") + 8 + 32  # dwLength of the stream header
    assert int.from_bytes(data[length : length + 4], "little") == 40
    data[length : length + 4] = (41).to_bytes(4, "little")
    (tmp_path / "off.avi").write_bytes(data)
    with pytest.warns(FrameCountWarning, match="40 frames decoded, 41 in its header"):
        frames, _ = read_frames(tmp_path / "off.avi")
    assert len(frames) == 40


def test_damage_in_the_middle_never_crashes(xvid, tmp_path):
    data, draw = xvid.read_bytes(), np.random.default_rng(0)
    outcomes = []
    for number in range(40):
        damaged = bytearray(data)
        for place in draw.integers(len(data), size=20):
            damaged[place] ^= 1 << draw.integers(8)
        path = tmp_path / f"{number}.avi"
        path.write_bytes(damaged)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FrameCountWarning)
            try:
                outcomes.append(read_frames(path, 16)[0].shape[1:])
            except VideoError as error:
                outcomes.append(path.name in str(error))
    assert set(outcomes) <= {(16, 16, 3), True}
    assert (16, 16, 3) in outcomes


@pytest.mark.parametrize("name", ["a.avi", "a.mp4", "a.png"])
@pytest.mark.parametrize("content", [None, b"", b"not a video, just text\n" * 50])
def test_what_is_no_video_is_an_error_that_names_it(tmp_path, name, content):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    for read in (read_frames, probe):
        with pytest.raises(VideoError, match=name):
            read(tmp_path / name)


def test_sound_alone_is_no_video(tmp_path):
    source = ["-f", "lavfi", "-i", "sine=duration=0.2"]
    processes.run([imageio_ffmpeg.get_ffmpeg_exe(), *source, tmp_path / "a.avi"])
    with pytest.raises(VideoError, match="no video stream"):
        read_frames(tmp_path / "a.avi")


def test_strips_lie_or_stand(tmp_path):
    frames = noise(7, 8, 8, 3)
    Image.fromarray(np.concatenate(list(frames), axis=1)).convert("RGBA").save(tmp_path / "lying.jpg", format="png")
    Image.fromarray(np.concatenate(list(frames), axis=0)).save(tmp_path / "standing.png")
    for name in ("lying.jpg", "standing.png"):
        read, fps = read_frames(tmp_path / name)
        np.testing.assert_array_equal(read, frames)
        assert fps == 25
        assert read_frames(tmp_path / name, 4)[0].shape == (7, 4, 4, 3)


def test_strips_of_16_bits_of_grey_keep_their_shades(tmp_path):
    levels = np.repeat(np.arange(0, 256, 51), 8).astype(np.uint16)  # six frames, black to white
    Image.fromarray(np.tile(levels * 257, (8, 1))).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_frames(tmp_path / "a.png")[0][:, 0, 0, 0], [0, 51, 102, 153, 204, 255])


def test_strips_are_turned_as_their_camera_says(tmp_path):
    frames = noise(5, 8, 8, 3)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # to be turned right by 90 degrees
    standing = np.concatenate(list(frames), axis=0)
    Image.fromarray(np.rot90(standing)).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_frames(tmp_path / "a.png")[0], frames)
    assert probe(tmp_path / "a.png") == (8, 8, 25, 5)


def test_a_strip_of_broken_frames_is_an_error(tmp_path):
    Image.fromarray(noise(8, 43, 3)).save(tmp_path / "a.png")
    with pytest.raises(VideoError, match="43x8 px do not divide"):
        read_frames(tmp_path / "a.png")


def test_written_video_plays_in_a_browser(tmp_path):
    frames = moving_square(17, height=47, width=63)
    write_video(tmp_path / "a.mp4", frames, fps=12)
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt, stream.frames) == ("h264", "yuv420p", 17)
        assert (stream.width, stream.height) == (64, 48)  # yuv420p wants even sizes
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # A browser starts before it has the whole file.
    read, fps = read_frames(tmp_path / "a.mp4")
    assert fps == 12
    assert abs(read[:, :47, :63].astype(int) - frames).mean() < 6
    assert abs(read[0, 22:26, 4:12].mean((0, 1)) - (230, 60, 20)).max() < 8  # The colours are right, not only near.


def test_written_gif_has_every_frame(tmp_path):
    write_video(tmp_path / "a.gif", moving_square(9), fps=10)
    with Image.open(tmp_path / "a.gif") as image:
        assert (image.n_frames, image.size) == (9, (64, 48))


def test_the_same_frames_give_the_same_bytes(tmp_path):
    for name in ("a.mp4", "b.mp4", "a.gif", "b.gif"):
        write_video(tmp_path / name, moving_square(9), fps=10)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    assert (tmp_path / "a.gif").read_bytes() == (tmp_path / "b.gif").read_bytes()


def test_a_failed_encoding_leaves_nothing(tmp_path):
    with pytest.raises(VideoError, match=r"a\.avi: cannot be encoded"):
        encode(tmp_path / "a.avi", moving_square(3), fps=10, vcodec="no-such-codec")
    assert not list(tmp_path.iterdir())


def test_tile_puts_clips_row_by_row():
    clips = np.arange(1, 4, dtype=np.uint8)[:, None, None, None, None] * np.ones((1, 2, 1, 1, 3), np.uint8)
    grid = tile(clips, columns=2, gap=1, enlarge=2)
    picture = [[1, 1, 0, 2, 2, 0], [1, 1, 0, 2, 2, 0], [0] * 6, [3, 3, 0, 0, 0, 0], [3, 3, 0, 0, 0, 0], [0] * 6]
    assert grid.shape == (2, 6, 6, 3)
    np.testing.assert_array_equal(grid[0, ..., 0], picture)
    np.testing.assert_array_equal(grid[1], grid[0])


def test_filmstrips_run_from_left_to_right():
    strips = grids.filmstrips(np.arange(6, dtype=np.uint8).reshape(2, 3, 1, 1, 1).repeat(3, -1), gap=0)
    np.testing.assert_array_equal(strips[..., 0], [[0, 1, 2], [3, 4, 5]])


@pytest.mark.parametrize("shape", [(40, 30, 3), (5, 40, 30, 3)])
def test_labels_stand_left_of_their_rows(shape):
    picture = noise(*shape)
    labelled = grids.labelled_rows(picture, ["DiscLeft", ""])
    margin = labelled.shape[-2] - 30
    np.testing.assert_array_equal(labelled[..., margin:, :], picture)
    assert labelled[..., :20, 6:margin, :].max() > 150
    assert labelled[..., 20:, :margin, :].max() == 0


def test_labels_of_any_script_are_letters_or_numbers_with_a_legend(tmp_path):
    """Never the box of a missing letter. No font has letters of the private use area."""
    box, blank = "\uffff", np.zeros((40, 30, 3), np.uint8)
    for word in ("Gehen é ñ", "ходьба", "περπάτημα", "走", "हिन्दी", "\ue001"):
        classes = ["walk", word]
        shown = grids.drawable(["walk", word, "of no class"], classes)
        assert (shown[0], shown[2]) == ("walk", "of no class")
        assert shown[1] in (word, "class 1")
        written = grids.labelled_rows(blank, [shown[1][-1]])[:, 6:-36]
        assert not np.array_equal(written, grids.labelled_rows(blank, [box])[:, 6:-36]), word
    assert shown[1] == "class 1"
    path = grids.write_legend(tmp_path / "a.mp4", ["walk", *2 * ["\ue001"]], classes)
    assert path.read_text(encoding="utf-8") == "class 1: \ue001\n"
    assert grids.legend(["\ue001", "walk"], classes) == ["class 1: \ue001", "walk"]
    assert grids.write_legend(tmp_path / "b.mp4", ["walk"], classes) is None
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]
    if importlib.util.find_spec("matplotlib"):
        assert grids.drawable(["ходьба"], ["ходьба"]) == ["ходьба"]


@pytest.mark.parametrize("shape", [(30, 150, 3), (5, 30, 150, 3)])
def test_labels_stand_above_their_columns(shape):
    picture, band = noise(*shape), grids.BAND
    labelled = grids.labelled_columns(picture, ["given", "", "predicted"])
    np.testing.assert_array_equal(labelled[..., band:, :, :], picture)
    above = labelled[..., :band, :, :]
    assert above[..., 1:50, :].max() > 150
    assert above[..., 50:100, :].max() == 0  # "given" ends before.
    assert above[..., 100:, :].max() > 150
    alone = grids.labelled_columns(picture, ["", "given"], margin=50)[..., :band, :, :]
    assert alone[..., :100, :].max() == 0  # The second of two columns of 50 px, after the margin.
    np.testing.assert_array_equal(alone[..., 100:, :], above[..., :50, :])
    narrow = grids.labelled_columns(picture, ["a name of some length", *["x"] * 5])[..., :band, :, :]
    lone = grids.labelled_columns(picture, ["", *["x"] * 5])[..., :band, :, :]
    np.testing.assert_array_equal(narrow[..., 25:, :], lone[..., 25:, :])  # It does not reach into the next one.
