"""The picture of a bandit, for people: the agent never sees it.

Axis letters: ``N`` bandits, ``A`` arms, ``H W`` pixels.
"""

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

_FRAME_SIZE = 224
_BACKGROUND_RGB = (28, 30, 38)
_TRACK_RGB = (62, 66, 78)
_EVEN_RGB = (90, 150, 230)
_ODD_RGB = (240, 150, 60)
_PAID_RGB = (90, 210, 110)
_UNPAID_RGB = (225, 75, 75)
_BAR_TOP, _BAR_BOTTOM = 16, 180
_LAMP_TOP, _LAMP_BOTTOM = 192, 208
_COLUMN, _GAP = 22, 5  # pixels along an arm's column, and between its bar and its edges


def draw_bandits(
    arm_probabilities: Float[Tensor, "N A"],
    last_arm: Int64[Tensor, " N"],
    last_reward: Float[Tensor, " N"],
) -> UInt8[Tensor, "N H W 3"]:
    """Draw one bar an arm, odd ones orange and even ones blue, as high as it is likely to pay.

    A lamp below the arm pulled last is green if it paid and red if it did not.
    """
    device = arm_probabilities.device
    num_arms = arm_probabilities.shape[1]

    def colour(rgb: tuple[int, int, int]) -> Tensor:
        return torch.tensor(rgb, dtype=torch.uint8, device=device)

    pixel = torch.arange(_FRAME_SIZE, device=device)
    offset = pixel - (_FRAME_SIZE - num_arms * _COLUMN) // 2
    arm = offset.div(_COLUMN, rounding_mode="floor").clamp(0, num_arms - 1)
    inside = (offset - arm * _COLUMN >= _GAP) & (offset - arm * _COLUMN < _COLUMN - _GAP)
    height = (arm_probabilities * (_BAR_BOTTOM - _BAR_TOP)).round()[:, None, arm]
    y = pixel[:, None]
    in_track = inside & (y >= _BAR_TOP) & (y < _BAR_BOTTOM)
    in_bar = in_track & (y >= _BAR_BOTTOM - height)
    in_lamp = inside & (y >= _LAMP_TOP) & (y < _LAMP_BOTTOM) & (arm == last_arm[:, None, None])
    bar_rgb = torch.stack((colour(_EVEN_RGB), colour(_ODD_RGB)))[arm % 2]
    lamp_rgb = torch.stack((colour(_UNPAID_RGB), colour(_PAID_RGB)))[last_reward.long()]
    frames = torch.where(in_track[..., None], colour(_TRACK_RGB), colour(_BACKGROUND_RGB))
    frames = torch.where(in_bar[..., None], bar_rgb, frames)
    return torch.where(in_lamp[..., None], lamp_rgb[:, None, None], frames)
