"""The commands `robusttune save`, `push` and `export`: the publishing of a model."""

from pathlib import Path

from robusttune.cli.errors import UsageError
from robusttune.cli.options import Arguments, Sources
from robusttune.cli.prepared import names_in_file, prepared
from robusttune.cli.runs import options_of_run
from robusttune.model.hub import folder_of
from robusttune.model.saved import hardened_run
from robusttune.sharing.export import FormatName, export
from robusttune.sharing.formats import FORMATS
from robusttune.sharing.push import push_to_hub
from robusttune.sharing.save import save


def run_save(
    run: str,
    folder: str | None = None,
    *,
    out: str | None = None,
    records: str | None = None,
    name: str | None = None,
    license: str | None = None,
    classes_file: str | None = None,
    overwrite: bool = False,
    trust: bool = False,
) -> int:
    """Write a folder to publish from a run: weights, configuration in timm's format, and a model card.

    Examples:
      robusttune save runs/a published/cats --license apache-2.0
      robusttune save runs/a published/cats --records runs/a/evaluation --classes_file names.txt

    Args:
        run: the folder of a run of harden.
        folder: a new folder.
        out: the same, for those who write --out as in other commands.
        records: the folder that evaluate wrote to; by default the one evaluation in the folder of the run.
        name: the name of the model, for the title of the card; by default that of the folder.
        license: its identifier on the Hub, such as apache-2.0; left out, the card says that there is none.
        classes_file: a text file with the names of the classes, one a line, in the order of the outputs, for a run that does
            not know them.
        overwrite: replace the files of an earlier save in this folder.
        trust: call a function that the run names as its model, which is code.
    """
    classes = None if classes_file is None else names_in_file(classes_file)
    place = save(
        run,
        _one_folder(folder, out),
        records,
        name=name,
        license=license,
        classes=classes,
        overwrite=overwrite,
        trust=trust,
    )
    print(f"saved: {place / 'README.md'}\nnext: robusttune push {place} USER/NAME --dry_run")
    return 0


def _one_folder(folder: str | None, out: str | None) -> str:
    """Return the new folder, which is named by its place or by --out.

    Raises:
        UsageError: it is named twice, or not at all.
    """
    if folder is not None and out is not None:
        wrong = f"the new folder is named twice, {folder!r} and --out {out!r}: leave one of them out"
    elif folder is None and out is None:
        wrong = "missing: the new folder; for example: robusttune save runs/a published/cats --license apache-2.0"
    else:
        return folder or out or ""
    raise UsageError(f"{wrong}; robusttune save --help explains")


def run_push(folder: str, repo_id: str, *, private: bool = True, dry_run: bool = False) -> int:
    """Upload a folder that save wrote to the Hugging Face Hub; with --dry_run, list what would go up.

    Examples:
      robusttune push published/cats me/cats --dry_run
      robusttune push published/cats me/cats --private false

    Args:
        folder: the folder that save wrote.
        repo_id: USER/NAME of the repository, which is created if there is none.
        private: hide the repository from everybody else.
        dry_run: check the folder and list its files; nothing is sent.
    """
    print(push_to_hub(folder, repo_id, private=private, dry_run=dry_run))
    return 0


def run_export(
    run: str,
    *,
    to: FormatName = "onnx",
    path: str | None = None,
    data: str | None = None,
    data_dir: str | None = None,
    split: str = "validation",
    batch_size: int = 128,
    workers: int = 0,
    subset: int | None = None,
    norm: str | None = None,
    eps: float | None = None,
    attack: str = "apgd",
    steps: int | None = 20,
    batch: int | None = None,
    tolerance: float | None = None,
    least_agreement: float = 0.0,
    device: str = "cpu",
    progress: bool = True,
    overwrite: bool = False,
    trust: bool = False,
) -> int:
    """Export the model of a run to another runtime, and compare the export with it; it is written only if they agree.

    Examples:
      robusttune export runs/a --to onnx --data images           # with the accuracy of the export, attacked, too
      robusttune export runs/a --to int8 --data images --least_agreement 0.99
      robusttune export published/cats --to torch.export --path cats.pt2

    Args:
        run: the folder of a run of harden, or one that save wrote.
        to: the format: onnx, torch.export, torchscript, or int8 (ONNX with weights of 8 bits).
        path: the path of the new file; by default model.onnx, model.pt2, model.ts or model.int8.onnx in the folder of the run.
        data: images to compare accuracy on, as for evaluate; without them, the logits of random images are compared.
        data_dir: the folder that holds a named data set.
        split: the split of the data.
        batch_size: images in a batch.
        workers: processes that read images.
        subset: the number of images.
        norm, eps: the norm and the radius of the adversary; by default those of the run.
        attack, steps: the attack that searches on the original; its images are then shown to the export, too.
        batch: the only batch size that the export takes; left out, it takes any.
        tolerance: the largest difference of logits that is allowed, as a share of the largest logit; by default 0.001, and any for
            int8.
        least_agreement: the share of images on which both must answer the same.
        device: to search for adversarial images on.
        progress: show a progress bar.
        overwrite: replace a file of this name.
        trust: call a function that the folder names as its model, which is code.
    """
    folder = str(folder_of(run))
    known = hardened_run(folder)
    options = options_of_run(folder, norm=norm, trust=trust)
    place = Path(folder) / f"model{FORMATS[to].ending}" if path is None and to in FORMATS else path or folder
    statistics: Arguments = {"mean": options["mean"], "std": options["std"]}
    arguments: Arguments = {"norm": options["norm"], "eps": options["eps"] if eps is None else eps, **statistics}
    loader, model = None, None
    if data is not None:
        taken = {
            name: options[name] for name in ("model", "model_args", "checkpoint", "size", "channels") if name in options
        }
        sources = Sources(**taken, data=data, data_dir=data_dir, split=split, batch_size=batch_size, workers=workers)
        model, loader, _ = prepared(
            sources, {**arguments, "progress": progress}, run=known, shuffle=False, untrained=False
        )
    exported = export(
        folder if model is None else model,
        place,
        to=to,
        loader=loader,
        run=None if model is None else folder,
        subset=subset,
        attack=attack,
        steps=steps,
        batch=batch,
        tolerance=tolerance,
        least_agreement=least_agreement,
        device=device,
        progress=progress,
        overwrite=overwrite,
        **arguments,
    )
    print(exported)
    return 0
