"""Parts of the decision page that tell of the stages of a trial: its screening, its looks, and its power."""

from robusttune.measuring.record import percent
from robusttune.run.markdown import markdown_table
from robusttune.run.settings import as_written
from robusttune.trial.decision.confirmed import share_images
from robusttune.trial.decision.metrics import accuracies_of, label
from robusttune.trial.decision.next_stage import NextStage
from robusttune.trial.decision.verdict import Decision
from robusttune.trial.results import Trial

CHANGED = (
    "the plan was changed after a look at the results, so that they are tested again, and more than one trial in twenty calls a "
    "difference real that is none: rather begin a new trial, in another folder and with other seeds"
)
TOGETHER = "Trainings ran at the same time and made each other slower: the times here, and what the next stage is said to cost, are too high."
MIXED = (
    "Results are of several versions ({}), with which the same training may end elsewhere: a difference between arms or seeds may be one "
    "of versions. Run all of a trial with the same ones."
)
HOW_WITH_LOOKS = (
    "Each arm was trained several times, with other seeds. A difference is real only if it is larger than the scatter from seed to "
    "seed and from one choice of held-out images to another explains (Student's t, with accuracies of the same seeds and images "
    "subtracted). What the trial was to answer is "
    "tested after {looks} seeds, at levels that add up to 5% over all looks, arms and needs: “real” is a difference "
    "that is significant so, and among arms that are equally good about one report in twenty or fewer calls any difference real. "
    "The ± of these is half of the width of an interval that holds at every look. All other columns are exploratory: "
    "they are corrected among themselves, and no choice between arms rests on them; whether clean accuracy falls by more than is "
    "accepted is judged by its own 95% interval. The rest is “noise”: no conclusion can be drawn from "
    "it, not even that arms are equal."
)


def stages(decision: Decision) -> list[str]:
    """State what the trial was to answer, when it ended, and which differences it could find."""
    plan = decision.trial.plan
    if plan.looks is None:
        return []
    ran = len(decision.measured.seeds)
    early = " The answer stood before the last one." if decision.findings.answered and ran < plan.looks[-1] else ""
    lines = [f"- What it had to answer: {', '.join(plan.needs or [])}. It has {ran} of {plan.looks[-1]} seeds.{early}"]
    lines += [f"- **Do not rely on this**: {CHANGED}."] if decision.trial.changed else []
    power = decision.trial.power or {}
    if "chance to find" in power:
        chances = ", ".join(f"{points} in {share}" for points, share in power["chance to find"].items())
        lines.append(f"- A trial like this notices a true difference between arms of {chances} of cases.")
    return lines


def screening(trial: Trial) -> list[str]:
    """Return the table of the first stage, from which the arms were chosen."""
    if trial.first is None or not trial.first.results:
        return []
    measured = accuracies_of(trial.first)
    kept = trial.kept or ()
    rows = [
        [
            arm,
            *(percent(float(value)) for value in measured.values[number].mean(axis=0)),
            "yes" if arm in kept else "no",
        ]
        for number, arm in enumerate(measured.arms)
    ]
    other = (
        ", which are those of the second stage, too" if share_images(trial, trial.first) else " that are not used again"
    )
    runs = f"{len(measured.seeds)} short runs of {trial.first.plan.epochs:g} epochs"
    return [
        "## Screening",
        f"Means of {runs}, on {measured.images} images{other}. Those that went on were trained anew.",
        markdown_table(["arm", *map(label, measured.metrics), "went on"], rows),
    ]


def next_command(decision: Decision, stage: NextStage) -> str:
    """Return a call of `poc` that runs the next stage: the arms that it names, with seeds that this trial has not used."""
    plan = decision.trial.plan
    used = [*plan.seeds, *(plan.screening or {}).get("seeds", [])]
    arguments = {
        "threats": {norm: as_written(eps) for norm, eps in (plan.threats or {}).items()},
        "needs": list(plan.needs or ["attack"]),
        "arms": [{arm: plan.arms[arm]} for arm in stage.arms],
        "screening": False,
        "seeds": list(range(max(used) + 1, max(used) + 1 + stage.seeds)),
        "epochs": stage.epochs,
        "images": plan.evaluation.images,
        "settings": dict(plan.settings or {}),
        "decision": {name: value for name, value in (plan.decision or {}).items() if name != "matters"} or None,
        "out": "runs/next",
    }
    shown = "".join(f"    {name}={value!r},\n" for name, value in arguments.items() if value is not None)
    return f"robusttune.poc(\n    model,\n    loader,\n{shown})"
