import numpy as np
import pytest

from vlmreward import FakeEncoder


def solid(*rgb, size=(8, 8)):
    return np.broadcast_to(np.array(rgb, np.uint8), (1, *size, 3)).copy()


@pytest.mark.parametrize(
    ("text", "cosine"),
    [
        ("a red room", 1.0),
        ("a green room", 0.0),
        ("a black room", 0.0),
        ("a yellow room", 1 / np.sqrt(2)),
        ("a white room", 1 / np.sqrt(3)),
    ],
)
def test_cosines_of_a_red_frame_are_as_worked_out_by_hand(text, cosine):
    encoder = FakeEncoder()
    got = encoder.encode_obs({"pixels": solid(255, 0, 0)}) @ encoder.encode_text([text]).T
    assert float(got) == pytest.approx(cosine, abs=1e-6)


def test_quadrants_are_told_apart():
    frames = np.concatenate([solid(0, 0, 0), solid(0, 0, 0)])
    frames[0, :4, :4] = (255, 0, 0)
    frames[1, 4:, 4:] = (255, 0, 0)
    first, second = FakeEncoder().encode_obs({"pixels": frames})
    # Three dark quadrants of four agree in each frame, and two of those in both: 2 / 4.
    assert float(first @ second) == pytest.approx(0.5)


def test_embeddings_of_given_texts_are_used():
    axis = [0.0] * 15 + [2.0]
    encoder = FakeEncoder({"goal": axis})
    assert encoder.encode_text(["goal"]).tolist() == [[0.0] * 15 + [1.0]]
    with pytest.raises(ValueError, match="expected 16 numbers"):
        FakeEncoder({"goal": [1.0]})
    with pytest.raises(ValueError, match="not all zero"):
        FakeEncoder({"goal": [0.0] * 16})


def test_values_are_the_same_everywhere():
    frames = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(1, 5, 7, 3)
    encoder = FakeEncoder()
    first = encoder.encode_obs({"pixels": frames})[0, :4]
    # Rows 0 to 1 and columns 0 to 2 hold the reds 0, 3, 6, 21, 24, 27: mean 13.5; green and blue
    # are one and two more; darkness is one less blue.
    mean = np.array([13.5, 14.5, 15.5]) / 255
    quadrant = np.array([*mean, 1 - mean[2]])
    np.testing.assert_allclose(first / first[0], quadrant / quadrant[0], rtol=1e-5)
    # The first bytes of the SHA-256 of "xyz" are 0x36 and 0x08.
    text = encoder.encode_text(["xyz"])[0]
    assert float(text[1] / text[0]) == pytest.approx((0x08 - 127.5) / (0x36 - 127.5), rel=1e-5)
