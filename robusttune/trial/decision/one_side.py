"""The decision on one printed side of A4, for those who decide."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from robusttune.measuring.glossary import explained, without_code
from robusttune.measuring.record import named, percent
from robusttune.run.markdown import as_text, markdown_table
from robusttune.trial.arms._phase import Phases, name_and_settings
from robusttune.trial.decision import checklists
from robusttune.trial.decision.criteria import ATTACK, CLEAN
from robusttune.trial.decision.metrics import Metric, label, needed
from robusttune.trial.decision.next_stage import costs_in_words, in_time
from robusttune.trial.decision.page_of_stages import TOGETHER, next_command
from robusttune.trial.decision.pareto import goals
from robusttune.trial.decision.picture import draw_arms
from robusttune.trial.decision.significance import Numbers
from robusttune.trial.decision.verdict import Decision, Verdict, accepted_loss

TITLES = {Verdict.GO_ON: "Go on", Verdict.DO_NOTHING: "Do nothing"}
KINDS = {"harden": "adversarial training", "ordinary": "ordinary training", "pretrain": "pre-training on pretext tasks"}
SAID = ("share", "tasks", "attack_tasks", "teacher")  # in other words, or not at all
MOST_CLASSES = 3
STYLE = """
@page { size: A4; margin: 11mm 13mm; }
body { font-size: 14px; } img { max-height: 15rem; } pre { font-size: .8em; }
@media print {
  body { font-size: 8pt; line-height: 1.25; padding: 0; } h1 { font-size: 14pt; margin: 0; } h2 { font-size: 10pt; margin: .5rem 0 .1rem; }
  p, ul, table { margin: .25rem 0; } .wide { margin: 0; } img { max-height: 4cm; } pre { font-size: 6.4pt; line-height: 1.2; margin: .2rem 0; padding: .2rem; } table { font-size: 7.5pt; }
  th, td { padding: .05rem .4rem; } body > p:last-of-type { font-size: 6.5pt; }
}
"""


def one_side(decision: Decision, folder: Path) -> str:
    """Return the page in Markdown: the verdict, arms, classes, costs, what was not tested, the next command, and its words.

    Its picture is written into the folder.
    """
    measured = decision.measured
    needs = needed(decision.trial.plan, measured.metrics) or goals(measured) or list(measured.metrics[:1])
    title = TITLES.get(decision.verdict, "Not enough data to tell")
    parts = [
        "# What the trial says",
        f"**{title}.** {decision.reason} {_basis(decision)}",
        *(f"**Do not rely on this before it is cleared up**: {doubt}" for doubt in checklists.doubts(decision)),
        f"![accuracy of each arm]({draw_arms(measured, needs, folder)})",
        _arms(decision, needs),
        _classes(decision, next((need for need in needs if need.kind == ATTACK), needs[0])),
        "## What it costs to go on",
        _costs(decision),
        "## What was not tested",
        " ".join(checklists.not_tested(decision)),
        "## Next",
        _next(decision),
    ]
    text = "\n\n".join(part for part in parts if part)
    words = " ".join(f"**{word}**: {meaning}" for word, meaning in explained(without_code(text)).items())
    return f"{text}\n\n## Words\n\n{words}\n"


def _basis(decision: Decision) -> str:
    measured = decision.measured
    arms, seeds = len(measured.arms), len(measured.seeds)
    return (
        f"Ranges in brackets hold the true difference in at least 95 of 100 such trials. This rests on {arms} arms, {seeds} seed{'s' * (seeds > 1)} of each and {measured.images:,} held-out images. A gain counts "
        f"if it is {100 * decision.worthwhile:.3g} points or more; {accepted_loss(decision)}."
    )


def _arms(decision: Decision, needs: list[Metric]) -> str:
    measured = decision.measured
    shown = [metric for metric in dict.fromkeys([Metric(CLEAN), *needs]) if metric in measured.metrics]
    means = measured.values.mean(axis=1)
    rows = [
        [
            arm,
            in_words(decision.trial.plan.arms[arm]),
            *(percent(float(means[number, measured.metrics.index(metric)])) for metric in shown),
            "none" if number in measured.untrained else in_time(float(measured.seconds[number].mean())),
        ]
        for number, arm in enumerate(measured.arms)
    ]
    return markdown_table(["arm", "what it is", *map(label, shown), "time of one training"], rows)


def in_words(phases: Phases) -> str:
    """Describe the phases of an arm.

    Example:
        >>> in_words([]), in_words([{"ordinary": {"share": 0.25}}, {"harden": {"tasks": None, "attack": "pgd", "steps": 10}}])
        ('the model as it is', 'ordinary training, then adversarial training (attack pgd, steps 10)')
    """
    said = []
    for kind, settings in map(name_and_settings, phases):
        told = [f"{name} {value}" for name, value in settings.items() if name not in SAID and value is not None]
        tasks = settings.get("tasks")
        if isinstance(tasks, dict) and tasks:
            told += [f"with {' and '.join(tasks)}", f"which the attack meets: {settings.get('attack_tasks', 'none')}"]
        told += ["with images without labels"] if settings.get("teacher") is not None else []
        said.append(KINDS[kind] + (f" ({', '.join(told)})" if told else ""))
    return ", then ".join(said) or "the model as it is"


def _classes(decision: Decision, need: Metric) -> str:
    """State the classes that the first arm of the verdict gets wrong most often, and the one that fell most, or gained least, on unchanged images.

    It is empty if the answers to single images are not known.
    """
    measured, results = decision.measured, decision.trial.results
    right = measured.right[measured.metrics.index(need)]
    labels = np.array(next((each.records.labels for each in results if each.records.labels), []))
    arm = decision.candidates[0] if decision.candidates else decision.nothing
    if right is None or arm not in measured.arms or right.shape[-1] != len(labels):
        return ""
    known = next((each.records.classes for each in results if each.records.classes), ())
    shares = _by_class(right[measured.arms.index(arm)], labels)
    lowest = sorted(shares, key=lambda label: shares[label])[:MOST_CLASSES]
    told = ", ".join(f"{_named(each, known)} ({percent(shares[each])})" for each in lowest)
    lines = [f"Classes that {arm} has right least often on {label(need)}: {told}."]
    clean = measured.right[measured.metrics.index(Metric(CLEAN))] if Metric(CLEAN) in measured.metrics else None
    if clean is not None and decision.nothing is not None and decision.nothing != arm:
        before, after = (_by_class(clean[measured.arms.index(each)], labels) for each in (decision.nothing, arm))
        fallen = min(before, key=lambda label: after[label] - before[label])
        falls = after[fallen] < before[fallen]
        what = (
            f"{_named(fallen, known)} falls most" if falls else f"no class falls; {_named(fallen, known)} gains least"
        )
        lines.append(f"On unchanged images, {what}: from {percent(before[fallen])} to {percent(after[fallen])}.")
    return " ".join(lines)


def _named(label: int, classes: Sequence[str]) -> str:
    return as_text(named(label, classes)) if classes else f"class {label}"


def _by_class(right: Numbers, labels: Numbers) -> dict[int, float]:
    """Return the share of right answers (S,M) to the images of each class, over all seeds."""
    shares = right.mean(axis=0)
    return {int(each): float(shares[labels == each].mean()) for each in np.unique(labels)}


def _costs(decision: Decision) -> str:
    stage = decision.next
    if stage is None:
        return "Nothing more is to be run."
    epochs = "" if stage.epochs is None else f", {stage.epochs:g} epochs each"
    words = [*costs_in_words(stage, decision.trial.plan), *([TOGETHER] if decision.trial.together else [])]
    return (
        f"The next stage ({len(stage.arms)} ways of training, each with {stage.seeds} seeds{epochs}): {' '.join(words)}"
    )


def _next(decision: Decision) -> str:
    if decision.next is None:
        return "None. Ask again when the threat, the data or the model changes, or a larger trial is worth its cost."
    said = "For a developer: this runs the next stage, with what `poc` was given before."
    return f"{said}\n\n```python\n{next_command(decision, decision.next)}\n```"
