# %% [markdown]
# # Harden a classifier of your own photographs
#
# This notebook takes the steps of [the tutorial](../docs/tutorial.md) in Python: it makes a folder of photographs, trains a small model on
# them, hardens it, and measures what that gained and what it cost. Run the cells from top to bottom. Training and measuring take
# a few minutes on two cores.
#
# You need a copy of the repository, and `pip install '.[all]' notebook`. Open the notebook from the folder `examples`.

# %%
from functools import partial
from io import BytesIO
from pathlib import Path

import photographs
import pictures
import timm
import torch
from IPython.display import Image
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

import robusttune
from robusttune.evaluations.sweep import sweep

FOLDER = Path("runs/photographs")
if not FOLDER.exists():
    photographs.write(FOLDER, photographs.SPLITS)
sorted(each.name for each in (FOLDER / "train").iterdir())

# %% [markdown]
# Each of the three folders `train`, `validation` and `test` holds one folder for each class. To use your own photographs, put them into
# such folders, and name the folder above. These are four images of each class:


# %%
def shown(picture):
    """A picture as JPEG, which keeps the notebook small."""
    file = BytesIO()
    picture.save(file, "JPEG", quality=76)
    return Image(data=file.getvalue(), format="jpeg")


SIDE = 48
shown(pictures.photographs(pictures.images_of(FOLDER / "train", SIDE, 4), 88))

# %% [markdown]
# ## The model and the loaders
#
# The loaders are PyTorch's own. Images are tensors on [0, 1]; if your transform ends in a `Normalize`, the library finds it. The model has
# random weights here. With `timm.create_model("resnet18", pretrained=True, num_classes=8)` it would begin with published ones.

# %%
torch.manual_seed(0)
transform = transforms.Compose([transforms.Resize(SIDE), transforms.CenterCrop(SIDE), transforms.ToTensor()])
data = {split: datasets.ImageFolder(FOLDER / split, transform) for split in photographs.SPLITS}
loader = DataLoader(data["train"], 128, shuffle=True)
val_loader, test_loader = (DataLoader(data[split], 128) for split in ("validation", "test"))
model = timm.create_model("test_resnet", num_classes=len(data["train"].classes))

# %% [markdown]
# ## Before the run: how long will it take?
#
# `estimate` takes a few steps, gives the model back as it was, and says what the whole run would take.

# %%
settings = {"norm": "linf", "eps": 8 / 255, "finetune": 8, "epochs": 8}
robusttune.estimate(model, loader, val_loader=val_loader, out="runs/a", progress=False, **settings)

# %% [markdown]
# ## Harden
#
# `finetune=8` trains the model ordinarily first, for 8 epochs, as its weights are random. Then 8 epochs of hardening follow. The bar shows
# the loss and the accuracy on the adversarial images that the model is trained on.

# %%
model = robusttune.harden(model, loader, val_loader=val_loader, out="runs/a", **settings)

# %% [markdown]
# ## Measure before and after
#
# The folder `runs/a/finetune` holds the model as it was before hardening, `runs/a` the hardened one. Both are measured on the test
# images, which neither has seen: without an attack (`clean`), and under an attack with several radii (`sweep`).

# %%
radii = [0, 4 / 255, 8 / 255, 16 / 255]
evaluations = ["clean", partial(sweep, norms=["linf"], eps=radii)]
before = robusttune.evaluate("runs/a/finetune", test_loader, evaluations, norm="linf", eps=8 / 255)
before

# %%
after = robusttune.evaluate("runs/a", test_loader, evaluations)
after

# %% [markdown]
# The report draws the curve: accuracy against the radius of the attack. The bands are 95% intervals.

# %%
page = robusttune.report({"before": before, "after": after}, "runs/report")
Image(filename=page.parent / "curve.png", width=560)

# %% [markdown]
# ## Look at what the attack does
#
# The first test image of each class that both models classify right; then the attack against each model, with its answer and how
# sure it is.

# %%
one, other = pictures.subject(Path("runs/a/finetune")), pictures.subject(Path("runs/a"))
images, labels = pictures.chosen(pictures.images_of(FOLDER / "test", SIDE), [one, other])
shown(pictures.attacked(one, other, pictures.adversary(Path("runs/a")), images, labels, 88))

# %% [markdown]
# The gradient of the loss toward the pixels shows which pixels the model looks at. After hardening it follows the shapes in the image.

# %%
shown(pictures.gradients(one, other, images, labels, 88))

# %% [markdown]
# ## Decide
#
# `compare` tests both models on the same images, and says which differences are more than chance. [The tutorial](../docs/tutorial.md) says how to
# decide with this table.

# %%
robusttune.compare(before, after)
