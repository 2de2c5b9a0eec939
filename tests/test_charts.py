"""Charts of the report: scores on their bars, losses as curves."""

import numpy as np
import pytest

from hrvgan.metrics import PROTOCOLS
from hrvgan.metrics.protocols import lower_is_better
from pipeline.report.charts import against, curve, read_history, running_mean, ticks
from pipeline.report.run_results import Score


def test_a_score_lies_on_its_bar_between_its_ends():
    score = Score("refnet_acc", {"value": 0.5, "sd": 0.1, "real": 0.9, "chance": 0.25})
    assert (score.at, score.band, score.better) == (50, (40, 60), "higher")
    assert [(mark.words, mark.at) for mark in score.marks] == [("real clips", 90), ("chance", 25)]
    # A distance starts at 0 and leaves 8 % of its span beyond the worst: 100 + 0.08 (100 - 20) = 106.4.
    distance = Score("fvd2048_16f", {"value": 100.0, "sd": 0.0, "floor": 20.0, "halves": 30.0, "halves_n": 96.0})
    assert distance.marks[1].words == "two halves of the real clips (n = 96)"
    assert (distance.at, distance.better) == (pytest.approx(100 / 1.064, abs=0.01), "lower")


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=lambda protocol: protocol.name)
def test_which_way_is_better_is_known_by_every_name_of_a_protocol(protocol):
    for named in (protocol, protocol.reduced(12), protocol.unverified(), protocol.reduced(12).unverified()):
        assert lower_is_better(named.name) == protocol.lower_is_better


@pytest.mark.parametrize(
    ("value", "sd", "text", "spread"),
    [
        (312.0, 4.0, "312", "4"),
        (31.42, 1.37, "31.4", "1.4"),
        (0.00213, 0.00004, "0.00213", "0.00004"),
        (-0.002, 0.01, "\N{MINUS SIGN}0.00200", "0.01000"),
        (98765.4, 321.0, "98\u202f765", "321"),
        (0.0, 0.0, "0", "0"),
        (1.0, None, "1.00", None),
    ],
)
def test_numbers_show_three_digits_and_their_spread(value, sd, text, spread):
    score = Score("refnet_fd", {"value": value, "sd": sd, "floor": 1.0})
    assert (score.text, score.spread) == (text, spread)


def test_history_leaves_out_what_was_not_recorded(tmp_path):
    (tmp_path / "history.csv").write_text("step,loss/d/adv,loss/d/r1\n10,1.5,\n20,nan,0.25\n30,0.5,0.75\n")
    history = read_history(tmp_path / "history.csv")
    assert [column.tolist() for column in history["loss/d/adv"]] == [[10, 30], [1.5, 0.5]]
    assert [column.tolist() for column in history["loss/d/r1"]] == [[20, 30], [0.25, 0.75]]


def test_running_mean_against_the_definition():
    values = np.random.default_rng(0).normal(size=120)
    expected = [values[max(0, i - 3) : i + 4].mean() for i in range(120)]  # A twentieth of 120 is 3 to each side.
    np.testing.assert_allclose(running_mean(values), expected, atol=1e-12)


@pytest.mark.parametrize(("bottom", "top"), [(0, 1), (-0.37, 0.02), (3e-7, 9e-7), (0.9, 1.1), (-5e4, 2e6)])
def test_ticks_are_few_round_numbers_inside(bottom, top):
    marks = ticks(bottom, top)
    assert 3 <= len(marks) <= 8
    assert bottom <= marks[0]
    assert marks[-1] <= top
    assert [float(f"{mark:.3g}") for mark in marks] == pytest.approx(marks)


@pytest.mark.parametrize("values", [[2.0, 2.0, 2.0], [0.0, 0.0], [1.0, 1e9, 1.0], [-3.0, 4.0]])
def test_any_loss_can_be_drawn(values):
    svg = curve("loss/d/<adv>", np.arange(len(values)) * 10.0, np.array(values))
    assert "nan" not in svg
    assert "inf" not in svg
    assert "<adv>" not in svg
    assert svg.count("<polyline") == 2


def test_a_prediction_is_drawn_against_the_copy():
    svg = against("run predict_ssim", np.array([0.9, 0.8, 0.7]), np.array([0.8, 0.6, 0.4]))
    assert "0.9 one frame ahead and 0.7 in the last; the copied last frame 0.8 and 0.4" in svg
    copy, model = (
        np.array([point.split(",") for point in part.split('"')[0].split()], float)
        for part in svg.split('points="')[1:]
    )
    assert (model[:, 1] < copy[:, 1]).all()  # Above it: y goes down.
    assert np.array_equal(model[:, 0], copy[:, 0])
