"""Pictures of the scaling trend."""

import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np

from plots import BLACK, BLUE, GREEN, VERMILION, drawing, png

# From light to dark, so that sizes are told apart in black and white as well.
SHADES = ("#9ecae1", "#6baed6", "#4292c6", "#2171b5", "#08306b")
_DASHES: tuple[Any, ...] = (":", (0, (3, 1, 1, 1)), "--", "-.", "-")
TITLES = {"playroom": "Playroom", "launcher": "Launcher"}
DOMAIN_COLOURS = {"playroom": BLUE, "launcher": VERMILION}
_APART = 0.05
"""Points nearer to each other have no names: they would lie on one another."""


def line_of(index: int, count: int) -> dict[str, Any]:
    """Return colour and dashes of a model, counted from the smallest."""
    place = round(index * (len(SHADES) - 1) / max(1, count - 1))
    return {"color": SHADES[place], "linestyle": _DASHES[place]}


def two_panels(summary: Mapping[str, Any]) -> bytes:
    """Draw each domain's precision–recall curves beside its agents' learning curves, as PNG.

    The form of Baumli et al. 2023, Figure 4: offline accuracy on the left, ground truth on goals
    never trained on on the right, one line a size.
    """
    parameters = summary["image_tower_parameters"]
    with drawing((9.6, 3.6 * len(summary["domains"]))) as figure:
        panels = figure.subplots(len(summary["domains"]), 2, squeeze=False)
        for (left, right), (name, domain) in zip(panels, summary["domains"].items(), strict=True):
            for index, (model, found) in enumerate(domain["models"].items()):
                look = line_of(index, len(parameters))
                label = f"{model}, {_short(parameters[model])}"
                curve = found["offline"]["precision_recall"]
                left.plot(curve["recall"], curve["precision"], label=label, **look)
                _learning(right, found["online"], label, look)
            _learning(
                right, domain["true reward"], "true reward", {"color": BLACK, "linestyle": "-"}
            )
            left.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
            left.set_title(f"{TITLES[name]}: reward, held-out goals")
            right.set(xlabel="steps", ylabel="success, held-out goals", ylim=(0, 1.02))
            right.set_title(f"{TITLES[name]}: agents")
        handles, labels = panels[0, 1].get_legend_handles_labels()
        figure.legend(
            handles, labels, title="image tower", loc="upper left", bbox_to_anchor=(1.0, 0.95)
        )
        figure.tight_layout()
        return png(figure)


def _learning(axes: Any, online: Mapping[str, Any], label: str, look: Mapping[str, Any]) -> None:
    curve = online["curves"]["test_success"]
    steps = np.array(online["steps"])
    axes.plot(steps, curve["value"], label=label, **look)
    axes.fill_between(
        steps, curve["low"], curve["high"], color=look["color"], alpha=0.15, linewidth=0
    )


def _short(count: int) -> str:
    """Write a number of parameters in three figures."""
    if count >= 1_000_000:
        return f"{count / 1e6:.3g} M"
    return f"{count / 1e3:.3g} k"


def accuracy_by_size(summary: Mapping[str, Any]) -> bytes:
    """Draw average precision, and distance from the true reward, over the size of the tower."""
    sizes = list(summary["image_tower_parameters"].values())
    panels_of = (("ap", "average precision"), ("epic", "EPIC distance"))
    with drawing((8.6, 3.4)) as figure:
        for axes, (name, label) in zip(figure.subplots(1, 2), panels_of, strict=True):
            for domain, marker in zip(summary["domains"], ("o", "s"), strict=True):
                models = summary["domains"][domain]["models"].values()
                for group, line in (("named", "--"), ("held_out", "-")):
                    found = [model["offline"][name][group] for model in models]
                    axes.errorbar(
                        sizes,
                        [value["value"] for value in found],
                        _bars(found),
                        color=DOMAIN_COLOURS[domain],
                        linestyle=line,
                        marker=marker,
                        capsize=3,
                        label=f"{TITLES[domain]}, {group.replace('_', '-')} goals",
                    )
            axes.set(xscale="log", xlabel="parameters of the image tower", ylabel=label)
            axes.set_ylim(0, None)
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="upper left", bbox_to_anchor=(1.0, 0.95), handlelength=4)
        figure.tight_layout()
        return png(figure)


def accuracy_and_ability(summary: Mapping[str, Any]) -> bytes:
    """Draw what agents can do over how accurate their reward was offline, one point a size.

    Filled: at the end of training. Open: mean over training, which tells who learned sooner.
    """
    kinds = (
        ("test_success", "at the end", {"fmt": "o"}),
        ("success_over_training", "mean over training", {"fmt": "o", "markerfacecolor": "white"}),
    )
    with drawing((4.6 * len(summary["domains"]), 3.6)) as figure:
        panels = figure.subplots(1, len(summary["domains"]), squeeze=False)[0]
        for axes, (name, domain) in zip(panels, summary["domains"].items(), strict=True):
            ap = [model["offline"]["ap"]["held_out"] for model in domain["models"].values()]
            x = [one["value"] for one in ap]
            for kind, label, look in kinds:
                found = [model["online"][kind] for model in domain["models"].values()]
                y = [one["value"] for one in found]
                axes.errorbar(
                    x, y, _bars(found), _bars(ap), color=DOMAIN_COLOURS[name], label=label,
                    capsize=3, **look,
                )  # fmt: skip
            if max(x) - min(x) > _APART:
                for model, *point in zip(domain["models"], x, y, strict=True):
                    axes.annotate(model, point, xytext=(5, -11), textcoords="offset points")
            level = domain["true reward"]["test_success"]["value"]
            axes.axhline(level, color=BLACK, linestyle=(0, (2, 2)), linewidth=0.9)
            rank = summary["spearman"]["ap_return"][name]["value"]
            axes.set_title(f"{TITLES[name]}: ρ = {'–' if rank is None else f'{rank:.2f}'}")
            axes.set(xlabel="average precision, offline", ylabel="success", xlim=(0, 1.02))
            axes.set_ylim(0, 1.02)
            axes.legend(loc="lower right" if max(x) - min(x) > _APART else "lower left")
        figure.tight_layout()
        return png(figure)


def choices(summary: Mapping[str, Any]) -> bytes:
    """Draw how average precision hangs on words, negatives and head, for every size."""
    kinds = {
        "words": lambda name: name == "ap" or name.startswith("ap_form_"),
        "negatives": lambda name: name == "ap" or name.startswith("ap_negatives_"),
        "head": lambda name: name in ("ap", "ap_cosine", "ap_goal_baseline"),
    }
    titles = {
        "words": {"ap": "state"},
        "negatives": {"ap": "all"},
        "head": {"ap": "softmax"},
    }
    sizes = list(summary["image_tower_parameters"].values())
    domains = summary["domains"]
    with drawing((11.4, 3.1 * len(domains))) as figure:
        panels = figure.subplots(len(domains), len(kinds), squeeze=False, sharey="row")
        for row, (domain_name, domain) in zip(panels, domains.items(), strict=True):
            models = list(domain["models"].values())
            for axes, (kind, belongs) in zip(row, kinds.items(), strict=True):
                names = [name for name in models[0]["offline"] if belongs(name)]
                if kind == "negatives":  # from all to one
                    names = [*names[:1], *reversed(names[1:])]
                group = "named" if kind == "words" else "held_out"  # named in all forms
                for index, name in enumerate(names):
                    found = [model["offline"][name][group] for model in models]
                    short = name.removeprefix("ap_").removeprefix("form_")
                    look = line_of(len(names) - 1 - index, len(names))
                    axes.errorbar(
                        sizes,
                        [one["value"] for one in found],
                        _bars(found),
                        label=titles[kind].get(name, short.removeprefix("negatives_")),
                        marker="o",
                        markersize=4,
                        capsize=2,
                        **look,
                    )
                axes.set(xscale="log", ylim=(0, 1.02))
                axes.set_title(f"{TITLES[domain_name]}: {kind}, {group.replace('_', '-')} goals")
                axes.legend(title=kind, loc="best")
            row[0].set_ylabel("average precision")
        for axes in panels[-1]:
            axes.set_xlabel("parameters of the image tower")
        figure.tight_layout()
        return png(figure)


def in_context_curves(summary: Mapping[str, Any]) -> bytes:
    """Draw the ground truth that distilled agents earn, episode after episode, one line a size."""
    parameters = summary["image_tower_parameters"]
    with drawing((6.4, 3.4)) as figure:
        axes = figure.subplots()
        for index, model in enumerate(parameters):
            curve = summary["in_context"][model]["curve"]
            episodes = np.arange(1, len(curve) + 1)
            look = line_of(index, len(parameters))
            axes.plot(episodes, curve, label=f"{model}, {_short(parameters[model])}", **look)
        truth = summary["in_context"]["true reward"]["curve"]
        axes.plot(np.arange(1, len(truth) + 1), truth, color=BLACK, label="true reward")
        axes.set(xlabel="episode in context", ylabel="true return ÷ optimum", ylim=(0, 1.02))
        figure.legend(title="image tower", loc="upper left", bbox_to_anchor=(1.0, 0.95))
        figure.tight_layout()
        return png(figure)


def paid_and_reached(summary: Mapping[str, Any]) -> bytes:
    """Draw how many episodes the reward pays beside how many reach the goal, one group a size."""
    bars = (
        ("test_paid", "paid", BLUE, ""),
        ("test_reached", "reached", GREEN, "//"),
        ("test_paid_wrongly", "paid without being reached", VERMILION, ".."),
    )
    with drawing((4.8 * len(summary["domains"]), 3.4)) as figure:
        panels = figure.subplots(1, len(summary["domains"]), squeeze=False)[0]
        for axes, (name, domain) in zip(panels, summary["domains"].items(), strict=True):
            x = np.arange(len(domain["models"]))
            for offset, (key, label, color, hatch) in zip((-0.27, 0, 0.27), bars, strict=True):
                found = [model["online"][key] for model in domain["models"].values()]
                values = [one["value"] for one in found]
                axes.bar(
                    x + offset, values, 0.25, yerr=_bars(found), color=color, hatch=hatch,
                    edgecolor="white", label=label, capsize=2,
                )  # fmt: skip
            axes.set_xticks(x, list(domain["models"]))
            axes.set(title=TITLES[name], ylabel="episodes, held-out goals", ylim=(0, 1.05))
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="upper left", bbox_to_anchor=(1.0, 0.95))
        figure.tight_layout()
        return png(figure)


def wrong_frames(
    of_models: Mapping[str, tuple[np.ndarray, list[str]]], per_model: int = 4
) -> bytes:
    """Draw frames that models paid wrongly, a row a model, each under the goal it was paid for.

    A frame that several agents came to is drawn once.
    """
    with drawing((2.3 * per_model, 2.6 * len(of_models))) as figure:
        panels = figure.subplots(len(of_models), per_model, squeeze=False)
        for row, (model, (frames, goals)) in zip(panels, of_models.items(), strict=True):
            for axes in row:
                axes.axis("off")
            _, first = np.unique(frames, axis=0, return_index=True)
            if not len(first):
                row[0].text(0, 0.5, "none was paid wrongly", va="center")
            for axes, index in zip(row, np.sort(first), strict=False):
                frame, goal = frames[index], goals[index]
                axes.imshow(frame, interpolation="nearest")
                axes.set_title("\n".join(textwrap.wrap(goal, 24)), fontsize=8, fontweight="normal")
            row[0].annotate(model, (-0.12, 0.5), xycoords="axes fraction", rotation=90, va="center")
        figure.tight_layout()
        return png(figure)


def _bars(found: list[dict[str, float]]) -> np.ndarray:
    """Return how far intervals reach below and above their values."""
    value, low, high = (np.array([one[key] for one in found]) for key in ("value", "low", "high"))
    return np.maximum(0.0, np.stack([value - low, high - value]))
