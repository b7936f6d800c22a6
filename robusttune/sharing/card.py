"""Model card: a Markdown page for people, under metadata for the Hugging Face Hub."""

from collections.abc import Iterator

from huggingface_hub import ModelCard

from robusttune.measuring.headline import headlines
from robusttune.measuring.headline_words import basis, certainty, verdict
from robusttune.measuring.not_measured import not_measured
from robusttune.measuring.records import words_as_text
from robusttune.measuring.setting_words import images_of, overlap_of, versions_of
from robusttune.run.markdown import as_text, markdown_table
from robusttune.sharing.config import NORMALISED, UNTOLD, architecture_of, input_in_words, statistics_of
from robusttune.sharing.metadata import metadata_of_card, results_of
from robusttune.sharing.story import Story

NOBODY = "nothing: the training was ordinary, without an adversary"
SHOWN = 100  # names of classes; config.json has all
PLACE = "hf-hub:USER/NAME"  # of a repository that the user knows


def card_of(story: Story) -> str:
    """Return the card as text: Markdown, in which all words from elsewhere are text, under YAML."""
    parts = [
        f"# {as_text(story.name)}",
        _summary(story),
        *("## Model", _facts(story)),
        *("## Measured", *_measured(story)),
        *("## Limits", *_limits(story)),
        *("## Use", *_use(story)),
        *("## License", _license(story)),
    ]
    content = "\n\n".join(part for part in parts if part)
    return str(ModelCard(f"---\n{metadata_of_card(story).to_yaml()}\n---\n\n{content}\n"))


def _summary(story: Story) -> str:
    against = _against(story)
    hardened = f"hardened against small changes of its images ({against}) by" if against else "saved by"
    return f"An image classifier, {hardened} robusttune."


def _against(story: Story) -> str:
    """Name the adversary of the training; "" for none, and where it is not known."""
    about = story.about
    return f"{about.norm} up to {about.eps}, in pixel values on [0, 1]" if story.attacked else ""


def _facts(story: Story) -> str:
    about = story.about
    size = "x".join(map(str, about.size)) if about.size is not None else UNTOLD
    crop = "scaled and cropped to a square" if story.squares else f"scaling and cropping: {UNTOLD}"
    rows = {
        "model": about.model or "a torch.nn.Module that neither timm nor torchvision makes by a name",
        "outputs": about.outputs,
        "classes, in the order of the outputs": _classes(story),
        "images": f"{size} pixels, {about.channels} channel{'s' * (about.channels != 1)}; {crop}",
        "input": _input(story),
        "hardened against": _against(story) or (UNTOLD if story.attacked is None else NOBODY),
        "training": story.training or UNTOLD,
    }
    return markdown_table(["fact", "value"], [[name, as_text(str(value))] for name, value in rows.items()])


def _classes(story: Story) -> str:
    names = story.about.classes
    if names is None:
        return f"{UNTOLD}: which output is which class has to be asked from who trained the model"
    more = f" … (all {len(names)} in config.json)" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _input(story: Story) -> str:
    words, about = input_in_words(story.about), story.about
    if words == UNTOLD:
        return f"{UNTOLD}, whether pixels on [0, 1] or normalised images; timm then takes ImageNet's mean and std, which may be wrong"
    if words != NORMALISED:
        return f"{words}, without a mean and std"
    numbers = statistics_of(about)
    return f"{words}, with mean {_listed(numbers['mean'])} and std {_listed(numbers['std'])}"


def _listed(values: list[float]) -> str:
    return f"({', '.join(f'{value:g}' for value in values)})"


def _measured(story: Story) -> Iterator[str]:
    """Yield the verdict, what it rests on, and the table of all numbers."""
    if story.records is None:
        yield "Nothing was measured: neither the accuracy on unchanged images nor that under attack is known."
        return
    records = words_as_text(story.records)
    (headline,) = headlines({as_text(story.name): records})
    yield f"**{verdict(headline)}**"
    yield f"{basis(headline)} {certainty(headline)}".strip()
    if headline.judged is not None:
        yield as_text(headline.judged.why)
    found = {
        "data": "; ".join(dict.fromkeys(_data(story))),
        "images": images_of(records),
        "training images among them": overlap_of(records) or "not looked at",
        "measured on": str(records.facts.get("date", UNTOLD)),
        "versions": versions_of(records),
    }
    yield markdown_table(["fact", "value"], [[name, value or UNTOLD] for name, value in found.items()])
    yield records.table()


def _data(story: Story) -> Iterator[str]:
    for result in results_of(story.records) if story.records is not None else []:
        yield as_text(result.dataset_name + (f", split {result.dataset_split}" if result.dataset_split else ""))


def _limits(story: Story) -> Iterator[str]:
    yield (
        "Robust accuracy holds for the attacks, the norm and the radius that are named, on images like those that were measured. "
        "It is no proof against other attackers."
    )
    if story.records is not None:
        lines = not_measured({"the model": story.records})
        yield "Not measured:\n\n" + "\n".join(f"- {line}" for line in lines)


def _use(story: Story) -> Iterator[str]:
    """Yield code to load the model; it holds nothing that came from elsewhere."""
    if architecture_of(story.about) is not None:
        yield _code(f'import timm\n\nmodel = timm.create_model("{PLACE}", pretrained=True)')
    if story.about.model is not None:
        yield _code(f'import robusttune\n\nmodel = robusttune.load("{PLACE}")')
    else:
        yield "The model is made by code that is not here. Make it as it was, then give it the weights:"
        yield _code(f'import robusttune\n\nmodel = robusttune.load("{PLACE}", model)')
    yield f"A folder on this machine goes by `local-dir:FOLDER` in the place of `{PLACE}`."


def _code(text: str) -> str:
    return f"```python\n{text}\n```"


def _license(story: Story) -> str:
    if story.license is None:
        return "None is stated. Who owns the weights has to choose one: without it, nobody else may use them."
    return f"`{story.license}`"
