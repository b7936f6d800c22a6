"""Sentences of a report's first lines: the verdict, how sure it is, the attack, and what the adversary may do."""

from collections.abc import Mapping

from robusttune.measuring.attacked import Adversary
from robusttune.measuring.headline import Change, Headline
from robusttune.measuring.record import Record, accuracy, percent
from robusttune.run.settings import shown_radius

SURE = 0.05  # p-value below which a difference is said to be larger than chance makes
TINY = 0.001
MEANINGS = {
    "linf": "linf up to {eps} means that each value of each pixel may change by at most {eps}, where 1 is the way from black to white.",
    "l2": "l2 up to {eps} means that the changes of all pixels, squared and summed, are at most {eps} squared, where 1 is the way "
    "from black to white.",
}


def verdict(headline: Headline) -> str:
    """Return the verdict: accuracy under attack from before to after, then its price on unchanged images."""
    parts = []
    if headline.judged is not None:
        parts.append(_sentence(f"Under attack ({headline.judged.adversary})", headline.robust, headline))
    if headline.clean.second is not None or headline.clean.first is not None:
        parts.append(_sentence("On unchanged images", headline.clean, headline))
    if not parts:
        return f"No verdict: {headline.word} was measured neither on unchanged images nor under attack, by `clean` and `sweep`."
    if headline.judged is None:
        parts.append(
            f"{headline.word.capitalize()} under attack was not measured by `sweep`, `strong` or `autoattack`, on which a verdict rests."
        )
    return " ".join(parts)


def _sentence(where: str, change: Change, headline: Headline) -> str:
    first, second = _in_common(change)
    if second is None:
        return f"{where}, {quoted(headline.second)} was not measured."
    interval = f" ({interval_in_words(second.interval)})" if first is None else ""
    text = f"{where}, {quoted(headline.second)} {_verb(headline, headline.second)} on {percent(second.value)}{interval} of images"
    if headline.first is None:
        return f"{text}."
    if first is None:
        return f"{text}; {quoted(headline.first)} was not measured."
    verbs = [_verb(headline, name) for name in (headline.first, headline.second)]
    verb = "" if verbs[0] == verbs[1] else f" {verbs[0]}"
    if not change.alike:
        return f"{text}, and {quoted(headline.first)}{verb} on {percent(first.value)} under other attacks, with which this cannot be compared."
    return f"{text}, and {quoted(headline.first)}{verb} on {percent(first.value)}{f': {_points(change)}' if not verb else ''}."


def _in_common(change: Change) -> tuple[Record | None, Record | None]:
    """Return both accuracies; of the images in common where one of them was measured on others, too."""
    first, second, test = change.first, change.second, change.test
    if first is None or second is None or test is None or test.images == first.images == second.images:
        return first, second
    shares = (test.first, test.second)
    return tuple(  # type: ignore[return-value]
        accuracy(record.evaluation, round(share * test.images), test.images, record.setting, metric=record.metric)
        for record, share in zip((first, second), shares, strict=True)
    )


def quoted(name: str) -> str:
    """Return a model's name in quotes, as it may be any word."""
    return f"“{name}”"


def _verb(headline: Headline, name: str) -> str:
    answers = headline.answers[name]
    return "is right" if answers is None else f"agrees with {answers}"


def _points(change: Change) -> str:
    """Format a difference and its interval.

    Example:
        >>> from robusttune.measuring.compare import Comparison
        >>> from robusttune.measuring.record import accuracy
        >>> _points(Change(None, None, Comparison("", 0.5, 0.8, 100, 0, 30, 0.001)))
        '30.0 points more (95% interval 20.4 to 38.5)'
    """
    difference = 100 * (change.difference or 0.0)
    text = f"{_signed(difference)[0]} points {_signed(difference)[1]}" if round(difference, 1) else "no difference"
    if change.interval is None:
        return text
    direction = 1 if difference >= 0 else -1
    low, high = (_signed(100 * bound) for bound in sorted(change.interval, key=lambda bound: direction * bound))
    ends = [low[0], high[0]] if low[1] == high[1] else [" ".join(low), " ".join(high)]
    return f"{text} (95% interval {' to '.join(ends)})"


def _signed(points: float) -> tuple[str, str]:
    return f"{abs(points):.1f}", "more" if points >= 0 else "less"


def interval_in_words(interval: tuple[float, float]) -> str:
    """Format a 95% interval of a share in percent.

    Example:
        >>> interval_in_words((0.101, 0.25))
        '10.1 to 25.0'
    """
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}"


def basis(headline: Headline) -> str:
    """Say in short what the verdict rests on: the paired tests, the attacks and the number of images."""
    changes = {"under attack": headline.robust, "on unchanged images": headline.clean}
    tests = {what: change.test.p for what, change in changes.items() if change.test is not None}
    pairs = (_in_common(headline.robust), _in_common(headline.clean))
    record = next((each for first, second in pairs for each in (second, first) if each is not None), None)
    images = [] if record is None else [f"{record.images:,} images"]
    attacks = [f"attacked by {' and by '.join(headline.attacks)}"] if headline.attacks else []
    said = [_tested(tests, changes)] if tests else []
    return " ".join([*said, f"Measured on {', '.join([*images, *attacks])}." if images else ""]).strip()


def certainty(headline: Headline) -> str:
    """Say what the ranges and tests of the verdict are, or why there is no test."""
    if headline.first is None:
        return "Ranges in brackets are 95% intervals. There is no other model to compare with."
    tests = [change.test for change in (headline.robust, headline.clean) if change.test is not None]
    if not tests and len(set(headline.answers.values())) > 1:
        return (
            f"There is no paired test, as the two models are compared with other answers, {_whose(headline)}, and these differ: the "
            "numbers do not say which model is better. Pass the same teacher= to both evaluations."
        )
    if not tests:
        return (
            "There is no paired test, as these Records hold no answers to single images that both models have seen: chance may "
            "explain the differences."
        )
    return (
        f"Both models saw the same {tests[0].images:,} images, so they are compared image by image (McNemar's test). p is the "
        "probability of such a difference, or a larger one, between two models that are equally good. All this is about these "
        "two models: another training with another seed gives another model."
    )


def _whose(headline: Headline) -> str:
    """Say whose answers stand for the labels of each model."""
    return " and ".join(f"{quoted(name)} with {answers}" for name, answers in headline.answers.items())


def _tested(tests: Mapping[str, float], changes: Mapping[str, Change]) -> str:
    """Say which differences are larger than chance explains: those whose p-value is small and whose interval leaves out 0."""
    sure = {what: p < SURE and not _contains_0(changes[what].interval) for what, p in tests.items()}
    if len(set(sure.values())) == 1 and len(tests) > 1:
        verb = "are larger than chance explains" if all(sure.values()) else "may be chance"
        return f"Both differences {verb} ({', '.join(f'{what} p {_p(p)}' for what, p in tests.items())})."
    said = [
        f"{what} {'is larger than chance explains' if sure[what] else 'may be chance'} (p {_p(p)})"
        for what, p in tests.items()
    ]
    return f"The difference {', that '.join(said)}."


def _contains_0(interval: tuple[float, float] | None) -> bool:
    return interval is not None and interval[0] <= 0 <= interval[1]


def _p(p: float) -> str:
    return f"< {TINY}" if p < TINY else f"= {p:.2g}"


def strength(headline: Headline) -> str:
    """Say what the attacks behind the accuracy under attack show, and what they do not."""
    count = len(headline.attacks)
    several = "An image counts as right if it withstands all of these attacks. " if count > 1 else ""
    other = (
        ""
        if headline.same
        else f"{quoted(headline.first or '')} met other attacks, so the two numbers cannot be compared. "
    )
    return f"{several}{other}A stronger attack may find more: accuracy under attack is an upper bound.".replace(
        "accuracy", headline.word
    )


def meaning(adversary: Adversary) -> str:
    """Say what an adversary may do, for readers who do not know norms; "" for norms from elsewhere.

    Example:
        >>> meaning(Adversary("linf", 8 / 255)).split(" means")[0]
        'linf up to 8/255'
    """
    return MEANINGS.get(adversary.norm, "").format(eps=shown_radius(adversary.eps))


def expectation(headline: Headline) -> str:
    """State the expected robustness of the models: the mean over radii from 0 to the one judged at."""
    if headline.judged is None:
        return ""
    known = {name: record for name, record in headline.expected.items() if record is not None}
    if not known:
        return f"Not known: it needs attacks (`sweep`) at {headline.judged.adversary} and `clean`, with the answers to single images."
    said = [
        f"{quoted(name)} {percent(record.value)} ({interval_in_words(record.interval)})"
        for name, record in known.items()
    ]
    said += [f"{quoted(name)} not known" for name in headline.expected if name not in known]
    radii = next(iter(known.values())).setting["radii"]
    rough = " One radius gives a rough mean: measure `sweep` at more of them." if radii == 1 else ""
    return (
        f"{', '.join(said)}: the mean {headline.word} over all radii from 0 to {shown_radius(headline.judged.adversary.eps)}, by the "
        f"trapezoid rule over unchanged images and {radii} {'radius' if radii == 1 else 'radii'}.{rough}"
    )
