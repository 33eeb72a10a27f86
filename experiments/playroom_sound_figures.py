"""Pictures of agents in the Playroom with sound.

Axis letters: ``S`` seeds, ``K`` points of a curve.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from plots import LINES, drawing, png, short_count


@dataclass(frozen=True)
class LearningCurve:
    """True returns of one kind of agent over its training.

    Attributes:
        steps: Environment steps, ``[K]``.
        returns: ``[S, K]``.
    """

    steps: NDArray[np.float64]
    returns: NDArray[np.float64]


def learning_curves(groups: Mapping[str, Mapping[str, LearningCurve]]) -> bytes:
    """Draw the true return over training, a panel a group of goals, as PNG.

    Args:
        groups: The curves of each group, by who pays. Thick lines are means over seeds, thin ones
            the seeds.
    """
    with drawing((3.4 * len(groups), 3.2)) as figure:
        panels = figure.subplots(1, len(groups), squeeze=False)[0]
        for axes, (group, curves) in zip(panels, groups.items(), strict=True):
            for (payer, curve), (colour, line, marker) in zip(curves.items(), LINES, strict=False):
                axes.plot(curve.steps, curve.returns.T, color=colour, lw=0.6, alpha=0.4)
                mean = curve.returns.mean(axis=0)
                axes.plot(curve.steps, mean, line, color=colour, marker=marker, ms=4, label=payer)
            axes.set(xlabel="environment steps", ylim=(0, None), title=f"{group} goals")
            axes.xaxis.set_major_formatter(lambda value, _: short_count(value))
        panels[0].set_ylabel("true return per episode")
        figure.legend(
            *panels[0].get_legend_handles_labels(),
            title="paid by", loc="upper left", bbox_to_anchor=(1.0, 0.95),
        )  # fmt: skip
        figure.tight_layout()
        return png(figure)


def returns_in_context(curves: Mapping[str, NDArray[np.float64]]) -> bytes:
    """Draw the mean true return of every episode ``[K]``, by who acts, as PNG."""
    with drawing((6, 3.4)) as figure:
        axes = figure.add_subplot()
        for (name, curve), (colour, line, _) in zip(curves.items(), LINES, strict=False):
            axes.plot(np.arange(1, len(curve) + 1), curve, color=colour, ls=line, label=name)
        axes.set(
            xlabel="episode in context", ylabel="steps that are as wanted, of 20", ylim=(0, None)
        )
        axes.set_title("a wanted sound, in rooms never seen")
        axes.legend()
        return png(figure)
