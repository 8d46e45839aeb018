"""The curves of a report."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from homomorph.evaluation.results import MethodResult


def steps_figure(results: Mapping[str, MethodResult]) -> Figure:
    """Plot d between neighbouring frames along the path, one curve a method."""
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    for name, result in results.items():
        steps = result.path_steps
        axes.plot((np.arange(len(steps)) + 0.5) / len(steps), steps, label=_literal(name))
    axes.set(xlabel="v, all groups together", ylabel="d to the next frame", xlim=(0, 1), title="Steps along the path")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    return figure


def responses_figure(results: Mapping[str, MethodResult]) -> Figure:
    """Plot probabilities along the strength of a group alone, all methods in a panel.

    The first panel is the mean over groups, of the methods that move groups. Then, for each direction of a CycleGAN,
    its one label in the pairs where it can change it.
    """
    groups = {name: result for name, result in results.items() if not name.startswith("cyclegan")}
    panels = {
        "b's labels, mean of the groups": {
            name: np.mean(list(result.responses.values()), axis=0) for name, result in groups.items()
        }
    }
    for name, result in results.items():
        for direction, curve in result.direction_responses.items():
            panels.setdefault(direction, {})[name] = curve
    figure = Figure(figsize=(3.6 * len(panels) + 0.4, 3.4), layout="constrained")
    colours = {name: f"C{index}" for index, name in enumerate(results)}
    for axes, (title, curves) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for name, curve in curves.items():
            # A method that switches has nothing between two strengths.
            style = "steps-post" if name.startswith("cyclegan") else "default"
            axes.plot(np.linspace(0, 1, len(curve)), curve, label=_literal(name), color=colours[name], drawstyle=style)
        axes.set(xlabel="strength of the group", xlim=(0, 1), ylim=(0, 1.02), title=_literal(title))
        axes.legend(frameon=False)
    figure.axes[0].set_ylabel("probability")
    return figure


def group_responses_figure(name: str, result: MethodResult) -> Figure:
    """Plot the probability of b's labels along each group's strength, for one method."""
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    for group, response in result.responses.items():
        axes.plot(np.linspace(0, 1, len(response)), response, label=_literal(group))
    axes.set(xlabel="strength of the group", ylabel="probability of b's labels", xlim=(0, 1), ylim=(0, 1))
    axes.set_title(_literal(name))
    axes.legend(frameon=False)
    return figure


def as_svg(figure: Figure) -> str:
    """The figure as an SVG element."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg")
    text = stream.getvalue()
    return text[text.index("<svg") :]


def _literal(name: str) -> str:
    """Return a name that Matplotlib draws as it is: between dollars it would look for a formula."""
    return name.replace("$", r"\$")
