"""Pictures of a reward and of the agents trained on it; see `plots` for their style.

Shapes: T time steps, N frames, S seeds, K points of a curve, H W C an image.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8
from matplotlib.axes import Axes

from plots import BLACK, BLUE, GREEN, GREY, LINES, VERMILION, drawing, png, short_count

_NUM_SHOWN = 10


def episode_rewards(
    frames: UInt8[np.ndarray, "T H W C"],
    scores: Float[np.ndarray, " T"],
    env_rewards: Float[np.ndarray, " T"],
    *,
    title: str,
) -> bytes:
    """Draw an episode as a row of frames over what the reward model says and the truth.

    Args:
        frames: What each action led to.
        scores: What the reward model says of each.
        env_rewards: What the environment pays for each, in [0, 1].
        title: The goal in words, or the environment's name.
    """
    shown = np.unique(np.linspace(0, len(frames) - 1, min(_NUM_SHOWN, len(frames))).astype(int))
    with drawing((9.6, 4.4)) as figure:
        grid = figure.add_gridspec(3, len(shown), height_ratios=[1.1, 1.4, 1.0], hspace=0.2)
        for column, step in enumerate(shown):
            axes = figure.add_subplot(grid[0, column])
            axes.imshow(frames[step], interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.grid(visible=False)
            axes.set_title(str(step + 1), fontsize=9, fontweight="normal", loc="center", pad=3)
            for spine in axes.spines.values():
                spine.set(visible=True, color="#bbbbbb")
        steps = np.arange(1, len(frames) + 1)
        upper = figure.add_subplot(grid[1, :])
        upper.plot(steps, scores, color=BLUE)
        upper.set(ylabel="VLM score", xlim=(1, len(frames)))
        upper.tick_params(labelbottom=False)
        lower = figure.add_subplot(grid[2, :])
        lower.plot(steps, env_rewards, color=GREEN)
        lower.set(ylabel="true reward", xlabel="step", xlim=(1, len(frames)), ylim=(-0.05, 1.05))
        figure.align_ylabels([upper, lower])
        figure.suptitle(title, x=0.125, y=0.93, ha="left", fontsize=11, fontweight="bold")
        return png(figure)


def truth_over_training(
    curves: Mapping[str, tuple[Int[np.ndarray, " K"], Float[np.ndarray, "S K"]]],
    *,
    random: float,
    label: str,
) -> bytes:
    """Draw the ground truth over training, a line per agent.

    Args:
        curves: Steps and measure of each agent; NaN where no episode ended.
        random: The measure of random actions.
        label: What is measured.
    """
    with drawing((7.6, 4.0)) as figure:
        axes = figure.subplots()
        for (agent, (steps, measure)), (color, line, marker) in zip(
            curves.items(), LINES, strict=False
        ):
            # Parts of training in which no episode ended are left out.
            for own in measure:
                ended = ~np.isnan(own)
                axes.plot(steps[ended], own[ended], color=color, linewidth=0.6, alpha=0.4)
            seen = ~np.isnan(measure).all(axis=0)
            axes.plot(
                steps[seen],
                np.nanmean(measure[:, seen], axis=0),
                color=color,
                linestyle=line,
                marker=marker,
                markevery=4,
                markersize=4.5,
                label=agent,
            )
        axes.axhline(random, color=GREY, linestyle="-.", linewidth=1.2, label="random actions")
        axes.set(xlabel="environment steps", ylabel=label)
        axes.xaxis.set_major_formatter(lambda value, _: short_count(value))
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
        return png(figure)


def score_by_reward(scores: Float[np.ndarray, " N"], env_rewards: Float[np.ndarray, " N"]) -> bytes:
    """Draw what frames are scored over what the environment pays for their states."""
    with drawing((5.6, 3.8)) as figure:
        axes = figure.subplots()
        if len(np.unique(env_rewards)) <= 2:
            _histograms(axes, scores, env_rewards)
        else:
            axes.plot(env_rewards, scores, ".", color=BLUE, alpha=0.35, markersize=4)
            axes.set(xlabel="true reward", ylabel="VLM score")
        return png(figure)


def _histograms(
    axes: Axes, scores: Float[np.ndarray, " N"], env_rewards: Float[np.ndarray, " N"]
) -> None:
    edges = np.linspace(scores.min(), scores.max(), 41).tolist()
    for value, color, hatch in zip(
        np.unique(env_rewards), (VERMILION, BLUE), ("//", ""), strict=False
    ):
        axes.hist(
            scores[env_rewards == value],
            edges,
            density=True,
            color=color,
            alpha=0.55,
            hatch=hatch,
            edgecolor=BLACK,
            linewidth=0.3,
            label=f"true reward {value:g}",
        )
    axes.set(xlabel="VLM score", ylabel="share of frames (density)")
    axes.legend(loc="best")


@dataclass(frozen=True)
class AgentScore:
    """What agents of one algorithm reach in the ground truth, and random actions beside them.

    Attributes:
        label: Environment and algorithm.
        of_seeds: Each agent's mean, by what it was paid (``vlm`` or ``env``).
        random: The same of random actions.
        best: A reward of 1 at every step, or in every episode.
    """

    label: str
    of_seeds: Mapping[str, Sequence[float]]
    random: float
    best: float


def agents_by_environment(scores: Sequence[AgentScore]) -> bytes:
    """Draw how far agents get on either reward, as a share of a reward of 1 at every step."""
    with drawing((7.6, 0.62 * len(scores) + 1.2)) as figure:
        axes = figure.subplots()
        looks = {"vlm": (BLUE, "o", -0.14), "env": (VERMILION, "s", 0.14)}
        names = {"vlm": "trained on VLM reward", "env": "trained on the true reward"}
        for row, score in enumerate(scores):
            for paid_by, (color, marker, shift) in looks.items():
                shares = np.array(score.of_seeds[paid_by]) / score.best
                places = np.full(len(shares), row + shift)
                axes.plot(shares, places, marker, color=color, alpha=0.45, markersize=5)
                axes.plot(
                    shares.mean(),
                    row + shift,
                    "|",
                    color=color,
                    markersize=13,
                    markeredgewidth=2.5,
                )
            axes.plot(score.random / score.best, row, "x", color=GREY, markersize=7)
        for paid_by, (color, marker, _) in looks.items():
            axes.plot([], [], marker, color=color, label=f"{names[paid_by]} (bar: mean of seeds)")
        axes.plot([], [], "x", color=GREY, label="random actions")
        axes.set(
            yticks=range(len(scores)),
            yticklabels=[score.label for score in scores],
            xlim=(-0.03, 1.03),
            ylim=(len(scores) - 0.5, -0.5),
            xlabel="share of steps the truth rewards (BabyAI: of episodes with success)",
        )
        axes.legend(loc="upper left", bbox_to_anchor=(0.0, -0.14))
        return png(figure)
