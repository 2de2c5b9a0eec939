"""The store on disk, the clips out of it, the stream of batches, the npz."""

import hashlib
import json
import pickle
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hrvgan.clipstore.batches import BatchStream
from hrvgan.clipstore.clips import COLUMNS, Clips
from hrvgan.clipstore.contact_sheet import contact_sheet
from hrvgan.clipstore.writer import Clip, export_npz, import_npz, motion, write_clips
from hrvgan.errors import InputError
from tests import processes

SHAPE = (6, 4, 4, 3)


def make_clips(num_videos=10, classes=("a", "b"), clips_per_video=2):
    frames = np.random.default_rng(0).integers(256, size=(num_videos * clips_per_video, *SHAPE), dtype=np.uint8)
    for number, clip in enumerate(frames):
        video, start = divmod(number, clips_per_video)
        split = "test" if video == 1 else "val" if video == 2 else "train"
        name = classes[video % len(classes)] if classes else ""
        yield Clip(
            f"v{video}@{start}", f"v{video}", name, "f" * 32, split, f"g{video}", start, 2, 25.0, motion(clip), clip
        )


@pytest.fixture
def store(tmp_path):
    write_clips(tmp_path / "clips", make_clips(), shape=SHAPE, classes=["a", "b"])
    return tmp_path / "clips"


def test_clips_come_back(store):
    clips, wanted = Clips(store), list(make_clips())
    assert (len(clips), clips.shape, clips.classes, clips.num_classes) == (20, SHAPE, ["a", "b"], 2)
    assert clips.fps == 12.5  # 25 frames a second, every second one taken
    np.testing.assert_array_equal(clips[3], wanted[3].frames)
    np.testing.assert_array_equal(clips.read([7, 0, 7]), np.stack([wanted[i].frames for i in (7, 0, 7)]))
    assert clips.labels.dtype == np.int64
    assert clips.labels.tolist() == [0, 0, 1, 1] * 5
    for row, clip in zip(clips.index.to_pylist(), wanted, strict=True):
        assert {name: row[name] for name in COLUMNS if name not in ("label", "motion")} == {
            name: getattr(clip, name) for name in COLUMNS if name not in ("label", "motion")
        }
        assert row["motion"] == pytest.approx(clip.motion, rel=1e-6)


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_one_clip_is_a_view_and_compressed_stores_read_alike(tmp_path, compression):
    write_clips(tmp_path / "c", make_clips(), shape=SHAPE, classes=["a", "b"], compression=compression)
    clips = Clips(tmp_path / "c")
    for number, clip in enumerate(make_clips()):
        np.testing.assert_array_equal(clips[number], clip.frames)
    assert clips[0].flags.writeable == (compression != "none")  # a view of the mapped file
    assert (clips.index["offset"].to_numpy() > 0).all() == (compression == "none")
    with pytest.raises(InputError, match="compression 'zip' is unknown; known: none, zstd"):
        write_clips(tmp_path / "d", make_clips(), shape=SHAPE, classes=["a", "b"], compression="zip")


def test_the_index_says_where_the_bytes_of_a_clip_lie(store):
    """For readers that know neither this project nor Parquet."""
    for row, clip in zip(Clips(store).index.to_pylist(), make_clips(), strict=True):
        data = (store / f"shard-{row['shard']:03d}.parquet").read_bytes()
        assert data[row["offset"] : row["offset"] + clip.frames.size] == clip.frames.tobytes()
        assert row["digest"] == hashlib.sha256(clip.frames.tobytes()).hexdigest()


def test_pandas_and_pyarrow_read_index_and_frames(store):
    wanted = list(make_clips())
    table = pd.read_parquet(store / "index.parquet")
    assert table.query("split == 'val'")["clip_id"].tolist() == ["v2@0", "v2@1"]
    shard = pd.read_parquet(next(store.glob("shard-*")))
    by_id = {clip.clip_id: clip.frames for clip in wanted}
    for clip_id, frames in zip(shard["clip_id"], shard["frames"], strict=True):
        np.testing.assert_array_equal(np.frombuffer(frames, np.uint8).reshape(SHAPE), by_id[clip_id])


def run_example(number, store, tmp_path, monkeypatch):
    """Run a python block of data/README.md on `store`; returns its names."""
    text = (Path(__file__).parents[1] / "data" / "README.md").read_text()
    (tmp_path / "data" / "clips").mkdir(parents=True)
    (tmp_path / "data" / "clips" / "shapes").symlink_to(store)
    monkeypatch.chdir(tmp_path)
    found = {}
    exec(text.split("```python\n")[number].partition("```")[0], found)
    return found


def test_the_example_for_polars_and_duckdb_does_what_it_says(store, tmp_path, monkeypatch):
    pytest.importorskip("polars", reason="the extra `test` is not installed")
    pytest.importorskip("duckdb", reason="the extra `test` is not installed")
    found = run_example(1, store, tmp_path, monkeypatch)
    clips = Clips(store)
    np.testing.assert_array_equal(found["clips"], clips.split("test").read(range(2)))
    motions = clips.index["motion"].to_numpy()
    for label, name in enumerate(clips.classes):
        most = max(np.flatnonzero(clips.labels == label), key=motions.__getitem__)
        np.testing.assert_array_equal(found["liveliest"][name], clips[most])


def test_the_example_for_datasets_does_what_it_says(store, tmp_path, monkeypatch):
    pytest.importorskip("datasets", reason="Hugging Face's datasets are not installed")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    found = run_example(2, store, tmp_path, monkeypatch)
    train = Clips(store).split("train")
    assert sorted(found["train"]["clip_id"]) == sorted(train.index["clip_id"].to_pylist())
    number = train.index["clip_id"].to_pylist().index(found["train"][0]["clip_id"])
    np.testing.assert_array_equal(found["clip"].reshape(SHAPE), train[number])


def test_the_example_for_torch_does_what_it_says(store, tmp_path, monkeypatch, capsys):
    """Two workers give the batches of the stream, in its order."""
    found = run_example(3, store, tmp_path, monkeypatch)
    train, dataset = Clips(store).split("train"), found["dataset"]
    assert len(dataset) == len(train)
    clip, label = dataset[1]
    np.testing.assert_array_equal(clip, train[1])
    assert label == train.labels[1]
    assert capsys.readouterr().out.count("torch.Size") == -(-len(train) // 2)
    assert len(found["batches"]) == len(found["loader"]) == 6
    for step, (clips, labels) in enumerate(found["batches"]):
        for ours, theirs in zip(found["stream"].batch(step), (clips, labels), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_splits_are_views(store):
    clips = Clips(store)
    val = clips.split("val")
    assert [len(clips.split(name)) for name in ("train", "val", "test", "none")] == [16, 2, 2, 0]
    np.testing.assert_array_equal(val.read([0, 1]), clips.read([4, 5]))
    assert val.labels.tolist() == [0, 0]
    assert len(clips) == 20
    assert val.digest == clips.digest


def test_motion_by_hand():
    frames = np.zeros((3, 1, 1, 3), np.uint8)
    frames[1], frames[2] = 255, 253
    assert motion(frames) == (255 + 2) / 2
    assert motion(frames[:1]) == 0


def test_the_layout_that_makes_random_reads_fast(store):
    shards = sorted(store.glob("shard-*.parquet"))
    assert len(shards) > 1
    for path in shards:
        about = pq.ParquetFile(path).metadata
        assert about.num_row_groups == about.num_rows
        frames = about.row_group(0).column(about.num_columns - 1)
        assert frames.path_in_schema == "frames"
        assert frames.physical_type == "FIXED_LEN_BYTE_ARRAY"
        assert frames.compression == "UNCOMPRESSED"
        assert not frames.has_dictionary_page
        assert not frames.is_stats_set
        assert all(about.schema.column(i).max_definition_level == 0 for i in range(about.num_columns))  # all required
    schema = pq.read_schema(store / "index.parquet")
    assert "frames" not in schema.names
    assert {"shard", "row"} <= set(schema.names)
    assert json.loads(schema.metadata[b"hrvgan"])["shape"] == list(SHAPE)


def test_another_video_rewrites_one_shard(store, tmp_path):
    write_clips(tmp_path / "more", make_clips(11), shape=SHAPE, classes=["a", "b"])
    old, new = (
        {path.name: path.read_bytes() for path in folder.glob("shard-*")} for folder in (store, tmp_path / "more")
    )
    assert len([name for name in new if new[name] != old.get(name)]) == 1
    assert old.keys() <= new.keys()


def test_the_digest_is_of_what_is_stored(store, tmp_path):
    def digest(clips, **options):
        write_clips(tmp_path / "other", clips, **{"shape": SHAPE, "classes": ["a", "b"]} | options)
        return Clips(tmp_path / "other").digest

    same = Clips(store).digest
    first, *rest = make_clips()
    assert len(same) == 64
    assert digest(make_clips(), num_shards=1) == same
    assert digest([replace(first, frames=first.frames ^ 1), *rest]) != same
    assert digest([replace(first, split="val"), *rest]) != same
    assert digest(make_clips(), filters="other") != same


def test_a_store_is_whole_or_not_there(store):
    def broken():
        yield from list(make_clips())[:5]
        raise RuntimeError("killed")

    before = Clips(store).digest
    with pytest.raises(RuntimeError):
        write_clips(store, broken(), shape=SHAPE, classes=["a", "b"])
    assert Clips(store).digest == before
    assert [path.name for path in store.parent.iterdir()] == ["clips"]


@pytest.mark.parametrize(("changes", "message"), [
    ({"split": "validation"}, "unknown split 'validation'; known: train, val, test"),
    ({"class_name": "c"}, "unknown class_name 'c'; known: a, b"),
])  # fmt: skip
def test_clips_that_fit_nowhere_are_refused(tmp_path, changes, message):
    first, *_ = make_clips()
    with pytest.raises(InputError, match=message):
        write_clips(tmp_path / "clips", [replace(first, **changes)], shape=SHAPE, classes=["a", "b"])


def test_a_store_without_clips_or_with_an_empty_class_is_refused(tmp_path):
    with pytest.raises(InputError, match="no clips to write"):
        write_clips(tmp_path / "clips", [], shape=SHAPE, classes=[])
    with pytest.raises(InputError, match="class 'c' has no clips"):
        write_clips(tmp_path / "clips", make_clips(), shape=SHAPE, classes=["a", "b", "c"])
    assert not list(tmp_path.iterdir())


def test_without_classes_every_label_is_0(tmp_path):
    write_clips(tmp_path / "clips", make_clips(classes=()), shape=SHAPE, classes=[])
    clips = Clips(tmp_path / "clips")
    assert clips.classes == []
    assert clips.num_classes == 0
    assert not clips.labels.any()


def test_missing_and_corrupt_stores_say_what_to_do(store, tmp_path):
    with pytest.raises(InputError, match=r"nowhere: not a clip store.*extract"):
        Clips(tmp_path / "nowhere")
    shard = next(store.glob("shard-*"))
    data = shard.read_bytes()
    shard.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=rf"{shard.name}: cannot be read.*extract"):
        Clips(store).read(range(20))
    shard.unlink()
    with pytest.raises(InputError, match=rf"{shard.name}: missing"):
        Clips(store)
    (store / "index.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(InputError, match="not a clip store"):
        Clips(store)


def test_clips_travel_and_are_read_by_many_threads(store):
    clips = Clips(store).split("train")
    wanted = clips.read(range(16))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(clips)).read(range(16)), wanted)
    results = [None] * 4

    def read(number):
        results[number] = np.stack([clips.read(range(16)) for _ in range(20)])

    threads = [threading.Thread(target=read, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        np.testing.assert_array_equal(result, np.broadcast_to(wanted, (20, *wanted.shape)))


def test_reading_clips_imports_no_video_library():
    code = "import sys, hrvgan.clipstore.clips, hrvgan.clipstore.writer; print(*sys.modules)"
    modules = processes.run([sys.executable, "-c", code]).stdout.split()
    assert not {"av", "ffmpeg", "imageio_ffmpeg", "PIL", "dvc", "mlflow"} & set(modules)


# The stream.


def test_a_batch_is_a_function_of_seed_and_step(store):
    clips = Clips(store)
    one, other = (BatchStream(clips, batch_size=3, seed=5, num_frames=4, flip=True) for _ in range(2))
    forward = [one.batch(step) for step in range(30)]
    for step in reversed(range(30)):
        for a, b in zip(forward[step], other.batch(step), strict=True):
            np.testing.assert_array_equal(a, b)
    assert forward[0][0].shape == (3, 4, 4, 4, 3)
    assert forward[0][1].dtype == np.int64
    assert (BatchStream(clips, batch_size=3, seed=6).indices(0) != one.indices(0)).any()


def test_labels_belong_to_their_clips(store):
    clips = Clips(store)
    stream = BatchStream(clips, batch_size=5)
    frames, labels = stream.batch(11)
    np.testing.assert_array_equal(frames, clips.read(stream.indices(11)))
    np.testing.assert_array_equal(labels, clips.labels[stream.indices(11)])


STREAMS = {
    "batch_size": st.integers(1, 30), "world_size": st.integers(1, 5), "seed": st.integers(0, 2**32),
}  # fmt: skip


@given(**STREAMS)
def test_each_epoch_is_a_permutation_shared_out_over_ranks(shapes_clips, batch_size, world_size, seed):
    num = len(shapes_clips)
    ranks = [BatchStream(shapes_clips, batch_size=batch_size, seed=seed, rank=rank, world_size=world_size)
             for rank in range(world_size)]  # fmt: skip
    steps = range(-(-3 * num // (batch_size * world_size)))
    order = np.concatenate([rank.indices(step) for step in steps for rank in ranks])
    epochs = order[: 3 * num].reshape(3, num)
    assert (np.sort(epochs, axis=1) == np.arange(num)).all()
    assert len({tuple(epoch) for epoch in epochs}) == 3  # Another order each time.


@given(**STREAMS, step=st.integers(0, 10**9), flip=st.booleans(), class_balanced=st.booleans())
def test_ranks_together_are_one_process(shapes_clips, batch_size, world_size, step, **options):
    one = BatchStream(shapes_clips, batch_size=batch_size * world_size, num_frames=4, **options)
    parts = [
        BatchStream(
            shapes_clips, batch_size=batch_size, num_frames=4, rank=rank, world_size=world_size, **options
        ).batch(step)
        for rank in range(world_size)
    ]
    for whole, *part in zip(one.batch(step), *parts, strict=True):
        np.testing.assert_array_equal(whole, np.concatenate(part))


def test_balanced_classes_come_equally_often_and_each_goes_through_its_clips(tmp_path):
    """Of 20 clips 14 are of class a, 4 of b, 2 of c."""
    names = ["a"] * 14 + ["b"] * 4 + ["c"] * 2
    clips = [replace(clip, class_name=name) for clip, name in zip(make_clips(), names, strict=True)]
    write_clips(tmp_path / "clips", clips, shape=SHAPE, classes=["a", "b", "c"])
    stream = BatchStream(Clips(tmp_path / "clips"), batch_size=6, class_balanced=True)
    visits = np.concatenate([stream.indices(step) for step in range(14)])  # 28 rounds of 3
    labels = stream.clips.labels[visits]
    assert (np.sort(labels.reshape(-1, 3), axis=1) == [0, 1, 2]).all()
    assert len({tuple(each) for each in labels.reshape(-1, 3)}) == 6  # in every order
    for label, members in enumerate((range(14), range(14, 18), range(18, 20))):
        epochs = visits[labels == label].reshape(-1, len(members))
        assert (np.sort(epochs, axis=1) == members).all()
    again = BatchStream(Clips(tmp_path / "clips"), batch_size=6, class_balanced=True)
    assert (again.indices(13) == stream.indices(13)).all()


def test_a_batch_far_away_costs_what_the_first_does(store):
    stream = BatchStream(Clips(store), batch_size=4, class_balanced=True)
    for step in (10**6, 10**9):
        assert len(stream.batch(step)[0]) == 4
    assert len(BatchStream(Clips(store), batch_size=4).indices(10**12)) == 4


def test_shorter_clips_start_anywhere_and_mirrors_are_half(store):
    clips = Clips(store)
    stream, plain = (BatchStream(clips, batch_size=20, num_frames=4, flip=flip) for flip in (True, False))
    starts, mirrored = [], []
    for step in range(20):
        for index, cut, seen in zip(stream.indices(step), plain.batch(step)[0], stream.batch(step)[0], strict=True):
            starts += [start for start in range(3) if (clips[index][start : start + 4] == cut).all()]
            mirrored.append(not (cut == seen).all())
            assert (seen == (cut[:, :, ::-1] if mirrored[-1] else cut)).all()
    assert set(starts) == {0, 1, 2}
    assert 140 < sum(mirrored) < 260


def test_streams_that_cannot_be_are_refused(store):
    with pytest.raises(InputError, match="no clips in this split"):
        BatchStream(Clips(store).split("none"), batch_size=2)
    with pytest.raises(InputError, match="clips of 6 frames, need 7"):
        BatchStream(Clips(store), batch_size=2, num_frames=7)
    with pytest.raises(ValueError, match="rank 2 of 2"):
        BatchStream(Clips(store), batch_size=2, rank=2, world_size=2)


# npz


def test_npz_and_back_is_the_same_store(store, tmp_path):
    clips = Clips(store)
    export_npz(clips, tmp_path / "clips.npz")
    with np.load(tmp_path / "clips.npz") as file:  # Readable with numpy alone, and no pickle.
        assert file["frames"].shape == (20, *SHAPE)
        assert file["frames"].dtype == np.uint8
        assert file["label"].tolist() == clips.labels.tolist()
        assert file["split"][2] == "test"
    import_npz(tmp_path / "clips.npz", tmp_path / "back")
    for path in store.iterdir():
        assert path.read_bytes() == (tmp_path / "back" / path.name).read_bytes()


def test_npz_of_something_else_is_refused(tmp_path):
    (tmp_path / "text.npz").write_bytes(b"no archive")
    np.savez(tmp_path / "other.npz", frames=np.zeros(3))
    for name in ("nowhere.npz", "text.npz", "other.npz"):
        with pytest.raises(InputError, match=rf"{name}: not an export"):
            import_npz(tmp_path / name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_contact_sheet_shows_every_class(store, tmp_path):
    contact_sheet(Clips(store), tmp_path / "sheet.png", rows=3, num_frames=4)
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.height == 6 * (64 + 2)
        assert image.width > 4 * (64 + 2)
