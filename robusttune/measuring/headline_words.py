"""Sentences of a report's first lines: the verdict, how sure it is, the attack, and what the adversary may do."""

from robusttune.measuring.attacked import Adversary
from robusttune.measuring.headline import Change, Headline
from robusttune.measuring.record import Record, percent
from robusttune.run.settings import shown_radius

SURE = 0.05  # p-value below which a difference is said to be larger than chance makes
TINY = 0.001
MEANINGS = {
    "linf": "linf up to {eps} means that each value of each pixel may change by at most {eps}, where 1 is the way from black to white.",
    "l2": "l2 up to {eps} means that the changes of all pixels, squared and summed, are at most {eps} squared, where 1 is the way "
    "from black to white.",
}


def verdict(headline: Headline) -> str:
    """Return the verdict as two sentences: accuracy under attack from before to after, and its price on unchanged images.

    The first names both models; it says so where nothing was attacked.
    """
    parts = []
    if headline.judged is not None:
        parts.append(_sentence(f"Under attack ({headline.judged.adversary})", headline.robust, headline))
    if headline.clean.second is not None or headline.clean.first is not None:
        parts.append(_sentence("On unchanged images", headline.clean, headline))
    if headline.judged is None:
        parts.append(f"{headline.word.capitalize()} under attack was not measured.")
    return " ".join(parts)


def _sentence(where: str, change: Change, headline: Headline) -> str:
    first, second = change.first, change.second
    verb = "is right" if headline.answers is None else f"agrees with {headline.answers}"
    if second is None:
        return f"{where}, {headline.second} was not measured."
    text = f"{where}, {headline.second} {verb} on {_share(second, first is None)} of images"
    if headline.first is None:
        return f"{text}."
    if first is None:
        return f"{text}; {headline.first} was not measured."
    return f"{text}, and {headline.first} on {percent(first.value)}: {_points(change)}."


def _share(record: Record, alone: bool) -> str:
    """Format an accuracy, with its interval where it is not compared with another."""
    return f"{percent(record.value)}{f' ({interval_in_words(record.interval)})' if alone else ''}"


def _points(change: Change) -> str:
    difference = 100 * (change.difference or 0.0)
    text = (
        f"{abs(difference):.1f} points {'more' if difference > 0 else 'less'}" if round(difference, 1) else "the same"
    )
    if change.interval is None:
        return text
    low, high = sorted(100 * bound * (1 if difference >= 0 else -1) for bound in change.interval)
    return f"{text} ({low:.1f} to {high:.1f})"


def interval_in_words(interval: tuple[float, float]) -> str:
    """Format a 95% interval of a share in percent.

    Example:
        >>> interval_in_words((0.101, 0.25))
        '10.1 to 25.0'
    """
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}"


def certainty(headline: Headline) -> str:
    """Say how sure the verdict is: the paired tests, or why there are none, and what the ranges in brackets are."""
    ranges = "Ranges in brackets are 95% intervals"
    if headline.first is None:
        images = max((record.images for record in (headline.robust.second, headline.clean.second) if record), default=0)
        return f"{ranges}, of {images:,} images. There is no other model to compare with."
    tested = [
        (what, change.test)
        for what, change in (("under attack", headline.robust), ("on unchanged images", headline.clean))
        if change.test is not None
    ]
    if not tested:
        return (
            f"{ranges}. There is no paired test, as these Records hold no answers to single images that both models have seen: "
            "chance may explain the differences."
        )
    said = [f"{what}, {_tested(test.p)} (p {_p(test.p)})" for what, test in tested]
    images = tested[0][1].images
    return (
        f"{ranges} of the difference. By McNemar's test on the same {images:,} images: {'; '.join(said)}. This is about these two "
        "models: another training with another seed gives another model."
    )


def _tested(p: float) -> str:
    return (
        "the difference is larger than chance would make it" if p < SURE else "chance alone may explain the difference"
    )


def _p(p: float) -> str:
    return f"< {TINY}" if p < TINY else f"= {p:.2g}"


def strength(headline: Headline) -> str:
    """Say by which attacks the accuracy under attack was measured, and on how many images."""
    record = headline.robust.second or headline.robust.first
    if record is None:
        return "No attack was run."
    joined = "; ".join(headline.attacks)
    several = (
        f" An image counts as right if it withstands all {len(headline.attacks)}." if len(headline.attacks) > 1 else ""
    )
    other = "" if headline.same else f" {headline.first} met other attacks, so the two numbers are not comparable."
    look = " This is a first look with one attack on few images, and no result." if headline.quick else ""
    return f"{joined}; {record.images:,} images.{several}{other}{look} A stronger attack may find more: the number is an upper bound."


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
    said = [f"{name} {percent(record.value)} ({interval_in_words(record.interval)})" for name, record in known.items()]
    said += [f"{name} not known" for name in headline.expected if name not in known]
    radii = next(iter(known.values())).setting["radii"]
    return (
        f"{', '.join(said)}: the mean {headline.word} over all radii from 0 to {shown_radius(headline.judged.adversary.eps)}, by the "
        f"trapezoid rule over unchanged images and {radii} {'radius' if radii == 1 else 'radii'}."
    )
