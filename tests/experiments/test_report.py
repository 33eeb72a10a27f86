"""The report and its pictures, on made-up results."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

import plots
import report


@pytest.fixture
def summary():
    return {
        "seconds": {"agents": 312.4, "distillation": 1234.0},
        "encoder": {
            "ap_seen": {"value": 0.981, "low": 0.97, "high": 0.99},
            "ap_held_out": 0.7,
            "false_positive_rate": 0.0072,
        },
        "agent": {"success_vlm": 0.9, "success_env": 0.96},
        "in_context": {"returns": [1.0] * 5 + [4.0] * 5, "optimum": 14.2, "random": 1.1},
        "source": {"final_return": 13.0},
        "versions": {"torch": "1.2.3"},
        "command": "python experiments/playroom.py --preset demo > <somewhere>",
    }


@pytest.fixture
def frames():
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (6, 12, 16, 3), dtype=np.uint8)


def pixels(image_bytes):
    image = Image.open(io.BytesIO(image_bytes))
    assert image.format == "PNG"
    return np.asarray(image.convert("RGB"), dtype=int)


def has_color(image, hex_color):
    color = [int(hex_color[i : i + 2], 16) for i in (1, 3, 5)]
    return bool((np.abs(image - color).max(axis=-1) <= 2).any())


class PageParser(HTMLParser):
    """Collects the table rows, the image sources and every unclosed tag."""

    def __init__(self):
        super().__init__()
        self.open_tags, self.images, self.rows = [], [], []

    def handle_starttag(self, tag, attrs):
        if tag == "img":
            self.images.append(dict(attrs)["src"])
        if tag == "tr":
            self.rows.append([])
        if tag not in {"img", "meta"}:
            self.open_tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open_tags.pop() == tag

    def handle_data(self, data):
        if "tr" in self.open_tags:
            self.rows[-1].append(data)


def read_page(path):
    parser = PageParser()
    text = path.read_text(encoding="utf-8")
    parser.feed(text)
    assert parser.open_tags == []
    return text, parser


def test_the_report_needs_no_other_file_and_keeps_the_images(tmp_path, summary, frames):
    image = plots.gif(frames)
    figures = [report.Figure("A <title>", "How to read & use it.", image)]
    path = report.write_report(tmp_path, summary, figures, limitations=["Only one room."])
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]
    text, page = read_page(path)
    (source,) = page.images
    header, data = source.split(",")
    assert header == "data:image/gif;base64"
    assert base64.b64decode(data) == image
    outside = re.findall(r"(?:src|href)=\"(?!data:)|url\(|https?://|<script", text)
    assert outside == []
    assert "A &lt;title&gt;" in text
    assert "How to read &amp; use it." in text
    assert "&gt; &lt;somewhere&gt;" in text
    assert "Only one room." in text


def test_the_numbers_stand_beside_their_targets(tmp_path, summary):
    _, page = read_page(report.write_report(tmp_path, summary, []))
    rows = {row[0]: row[1:] for row in page.rows}
    assert rows["Average precision, trained pairs"] == ["0.981 (0.97 to 0.99)", "≥ 0.95", "✓ met"]
    assert rows["Average precision, held-out pairs"] == ["0.7", "≥ 0.8", "✗ missed"]
    assert rows["False-positive rate at the threshold"] == ["0.72 %", "≤ 1.00 %", "✓ met"]
    ratio = rows["Success, trained on VLM reward ÷ trained on true reward"]
    assert ratio == ["0.938", "≥ 0.9", "✓ met"]
    assert rows["In context: last five episodes ÷ first five"] == ["4", "≥ 3", "✓ met"]
    assert rows["distillation"] == ["1,234 s"]
    assert rows["torch"] == ["1.2.3"]
    assert not any("41–50" in label for label in rows)


def test_long_runs_are_held_to_the_episodes_41_to_50(tmp_path, summary):
    summary["in_context"]["returns"] = [1.42] + [9.0] * 39 + [10.65] * 10
    _, page = read_page(report.write_report(tmp_path, summary, []))
    rows = {row[0]: row[1:] for row in page.rows}
    assert rows["In context: episodes 41–50 ÷ optimum"] == ["0.75", "≥ 0.7", "✓ met"]
    assert rows["In context: episode 1 ÷ optimum"] == ["0.1", "≤ 0.15", "✓ met"]


def test_an_undefined_ratio_is_not_a_target_met(tmp_path, summary):
    summary["in_context"]["returns"] = [0.0] * 10
    summary["agent"]["success_env"] = 0.0
    _, page = read_page(report.write_report(tmp_path, summary, []))
    rows = {row[0]: row[1:] for row in page.rows}
    assert rows["In context: last five episodes ÷ first five"] == ["nan", "≥ 3", "✗ missed"]
    assert rows["Success, trained on VLM reward ÷ trained on true reward"][-1] == "✗ missed"


@pytest.mark.parametrize("name", report.REQUIRED)
def test_an_unfinished_summary_is_refused_by_name(tmp_path, summary, name):
    *outer, key = name.split(".")
    del (summary[outer[0]] if outer else summary)[key]
    with pytest.raises(ValueError, match=re.escape(f"lacks {name};")):
        report.write_report(tmp_path, summary, [])
    assert list(tmp_path.iterdir()) == []


def test_pictures_are_shown_at_one_scale(tmp_path, summary, frames):
    curve = plots.LabelledCurve("trained pairs", np.ones(2), np.array([1.0, 0.5]), (0.5, 1.0))
    png = plots.precision_recall([curve])
    figures = [report.Figure("a", "b", png), report.Figure("c", "d", plots.gif(frames, scale=2))]
    text, _ = read_page(report.write_report(tmp_path, summary, figures))
    widths = [int(width) for width in re.findall(r'<img width="(\d+)"', text)]
    assert widths == [round(pixels(png).shape[1] * 96 / plots.DPI), 32]


def test_a_figure_must_be_a_png_or_gif():
    with pytest.raises(
        ValueError, match=r"'film': expected the bytes of a PNG or GIF, got b'\\xff"
    ):
        report.Figure("film", "caption", b"\xff\xd8\xff\xe0 a JPEG")


def test_the_film_strip_marks_success(frames):
    draw = {"prompt": "the person is next to the red ball", "threshold": 0.5}
    probability = np.linspace(0.0, 1.0, 6)
    without = pixels(plots.film_strip(frames * 0, probability, np.zeros(6, bool), **draw))
    success = pixels(plots.film_strip(frames * 0, probability, probability > 0.7, **draw))
    assert not has_color(without, plots.GREEN)
    assert has_color(success, plots.GREEN)


def test_the_reset_frame_earns_nothing(frames):
    """No action led to it, so its marker stays hollow however high it scores."""

    def blue_area(num_frames, probability):
        image = plots.film_strip(
            frames[:num_frames] * 0,
            np.full(num_frames, probability),
            np.zeros(num_frames, bool),
            prompt="x",
            threshold=0.5,
        )
        blue = [int(plots.BLUE[i : i + 2], 16) for i in (1, 3, 5)]
        return int((np.abs(pixels(image) - blue).max(axis=-1) <= 2).sum())

    one_filled_marker = blue_area(2, 0.9) - blue_area(2, 0.1)
    assert one_filled_marker > 50
    assert abs(blue_area(1, 0.9) - blue_area(1, 0.1)) < one_filled_marker / 4


def test_the_other_pictures_draw(frames):
    generator = np.random.default_rng(0)
    steps = np.arange(1, 9) * 1000
    returns = generator.random((2, 8))
    curve = plots.TrainingCurve("trained on VLM reward", steps, returns, returns / 2)
    one = pixels(plots.training_returns([curve]))
    two = pixels(plots.training_returns([curve, curve]))
    assert has_color(one, plots.BLUE)
    assert has_color(one, plots.VERMILION)
    assert one.shape[1] == pytest.approx(two.shape[1], rel=0.1)
    recall = np.linspace(1.0, 0.1, 8)
    judged = plots.LabelledCurve("trained pairs", 1 - recall / 4, recall, (0.5, 0.9))
    assert has_color(pixels(plots.precision_recall([judged])), plots.BLUE)
    mean = np.linspace(1.0, 8.0, 10)
    levels = {"source": np.linspace(1.0, 12.0, 40), "random": 1.0, "optimum": 14.0}
    image = pixels(plots.in_context_returns(mean, mean - 1, mean + 1, **levels))
    assert has_color(image, plots.GREY)


def test_the_animation_holds_every_frame_enlarged(frames):
    frames = (frames // 128 * 255).astype(np.uint8)  # at most eight colours, so GIF is lossless
    animation = Image.open(io.BytesIO(plots.gif(frames, scale=2, milliseconds=100)))
    assert animation.n_frames == 6
    assert animation.size == (32, 24)
    durations = []
    for index, frame in enumerate(frames):
        animation.seek(index)
        durations.append(animation.info["duration"])
        shown = np.asarray(animation.convert("RGB"))
        np.testing.assert_array_equal(shown, frame.repeat(2, axis=0).repeat(2, axis=1))
    assert durations == [100] * 5 + [400]


def test_rewarded_frames_have_a_green_border(frames):
    rewarded = np.array([False, True, False, False, True, False])
    animation = Image.open(io.BytesIO(plots.gif(frames * 0, rewarded=rewarded, scale=1)))
    seen = []
    for index in range(animation.n_frames):
        animation.seek(index)
        seen.append(has_color(np.asarray(animation.convert("RGB"), dtype=int), plots.GREEN))
    # Equal frames in a row are merged by the format.
    assert seen == [False, True, False, True, False]
    assert (frames * 0).max() == 0


@pytest.mark.parametrize(
    "draw",
    [
        lambda frames: plots.film_strip(
            frames, np.zeros(5), np.zeros(6, bool), prompt="x", threshold=0.5
        ),
        lambda frames: plots.gif(frames, rewarded=np.zeros(5, bool)),
        lambda frames: plots.in_context_returns(
            np.zeros(6), np.zeros(6), np.zeros(5), source=np.ones(1), random=0.0, optimum=1.0
        ),
    ],
    ids=["film strip", "gif", "in-context returns"],
)
def test_arrays_of_different_lengths_are_refused(frames, draw):
    with pytest.raises(ValueError, match=r"same length.*6.*5|same length.*5.*6"):
        draw(frames)
