"""Glossary of the terms in reports and decision pages, one sentence each."""

import re

WORDS = {
    "abstain": "said of a model: to give no answer if it is not sure.",
    "accuracy": "the share of images that the model puts into the right class.",
    "activation checkpointing": "a way to need less memory in training: what the layers compute is not kept but computed again.",
    "AdamW": "an optimiser, a rule by which the weights are changed at each step; usual for transformers.",
    "adversarial image": "an image that an attack has changed so that the model answers wrongly.",
    "adversarial training": "training on images that an attack has just changed to fool the model, so that it learns to withstand such changes.",
    "agreement": "the share of images on which the model answers as a teacher does, measured where there are no labels; it is not accuracy.",
    "APGD": "an attack like PGD that chooses its own step sizes, and so needs no tuning (Croce and Hein 2020).",
    "arm": "one of the ways of training that a trial compares.",
    "attack": "a search for a small change of an image that makes the model answer wrongly.",
    "augmentation": "a random change of training images, such as a crop or a flip, that keeps their class.",
    "AugMix": "an augmentation that mixes several chains of changes of an image (Hendrycks et al. 2020).",
    "AutoAttack": "a fixed suite of four attacks (APGD-CE, APGD-T, FAB-T, Square), by which published models are compared (Croce and Hein 2020).",
    "AWP": "adversarial weight perturbation: training that withstands small changes of the weights, too (Wu et al. 2020).",
    "backbone": "the model without its last layer, which names the class.",
    "ball": "all changes of an image that are within the radius.",
    "batch norm": "a layer that normalises features by their mean and standard deviation over a batch of images.",
    "bf16": "numbers of 16 bits, half of the usual size, which accelerators calculate with faster.",
    "black-box": "said of an attacker who sees the answers of the model, but not its weights.",
    "budget": "the most that a trial may cost, in seconds or in money.",
    "catastrophic overfitting": "a sudden loss of robustness in training by attacks of one step: these attacks fail, but stronger ones succeed.",
    "certified": "proved: no change within a radius alters the answer, whatever the attack.",
    "channels_last": "an order of an image's numbers in memory, in which convolutions are often faster.",
    "clean": "of images as they are, without attack or corruption.",
    "CNN": "convolutional neural network, such as a ResNet.",
    "confidence": "the probability that the model gives to the class that it chooses.",
    "confirmation": "the second stage of a trial: the arms that were kept are trained anew and measured on other images.",
    "corruption": "a change of images that happens by itself, such as noise, blur, fog or compression.",
    "cross-entropy": "the usual loss of classification: small if the right class has a high probability.",
    "CUDA graph": "a recording of many small computations on an NVIDIA GPU, which are then started all at once.",
    "EMA": "exponential moving average of the weights over the steps, which is often better than the weights at the end.",
    "epoch": "one pass through the training images.",
    "eps": "the radius of an attack: how far it may change an image. 8/255 means 8 of 255 steps of brightness.",
    "evasion": "an attack that changes the input of a trained model, so that it answers wrongly.",
    "expected robustness": "the mean accuracy under attack over all radii from 0 to that of training.",
    "exploratory": "measured to see where to look; no choice between arms depends on it.",
    "FGSM": "fast gradient sign method: an attack of a single step (Goodfellow et al. 2015).",
    "fine-tuning": "more training of a trained model on the images at hand.",
    "fingerprint": "a code by which a copy of a model's weights, or of images, is recognised.",
    "folding": "putting a batch norm into the convolution before it, so that an attack has less to compute.",
    "fp32": "numbers of 32 bits, the usual ones.",
    "gradient masking": "a model that only hides the direction in which attacks must go: it seems robust, and stronger attacks fool it.",
    "hardening": "training that makes a model hard to fool.",
    "head": "a small layer behind the backbone, for the classes or for another task.",
    "held-out": "kept apart from training, so that results are measured on images that the model has not seen.",
    "Holm's correction": "a rule that keeps the chance of any false finding at 5% if many differences are tested (Holm 1979).",
    "interval": "a range that holds the true value in 95 of 100 such measurements.",
    "jigsaw": "a pretext task: to recognise in which order the tiles of an image were put.",
    "l2": "a way to measure a change of an image: all changes of pixels taken together, many small ones or few large ones.",
    "learning rate": "how far the weights are changed at each step.",
    "linf": "a way to measure a change of an image: linf 0.1 changes no pixel by more than a tenth of the way from black to white.",
    "logits": "the numbers that a model gives for the classes; the largest one is its answer.",
    "look": "a point at which a trial tests its results, and may end.",
    "loss": "in training, the number that the training lowers; of accuracy, the points that are given up.",
    "margin": "the logit of the right class minus the largest other logit.",
    "MART": "adversarial training that gives more weight to images that the model gets wrong (Wang et al. 2020).",
    "mCE": "mean corruption error: errors under corruptions, divided by those of a reference model.",
    "McNemar's test": "a test whether two models differ, by the images that one classifies correctly and the other wrongly.",
    "mixed precision": "training in which most numbers have 16 bits: bf16 or fp16.",
    "Monitor": "the part of this library that raises an alarm if images in service are unlike the reference images.",
    "N-FGSM": "an attack of a single step from a noisy start, for training (de Jorge et al. 2022).",
    "need": "what a trial has to answer, such as accuracy under attack.",
    "noise": "said of a difference: too small to be distinguished from chance. Said of images: random grain.",
    "norm": "a way to measure the size of a change: linf or l2.",
    "objective": "the loss of adversarial training: adversarial, TRADES or MART.",
    "OOD": "out of distribution: images of another kind than those that the model was trained on.",
    "optimiser step": "one change of the weights, from the gradient of one batch or a part of it.",
    "ordinary training": "training on images that no attack has changed.",
    "patch rotation": "a pretext task: to recognise which tile of an image was turned, and by how much.",
    "PGD": "an attack of several small steps, each in the direction that raises the loss most (Madry et al. 2018). PGD-10 has 10 steps.",
    "plain DataLoader": "torch's own DataLoader over a data set with a length, in order or shuffled, without another sampler.",
    "plan": "the file that states, before a trial, what it does: plan.yaml.",
    "point": "of accuracy: one in a hundred images.",
    "poisoned": "said of training data: with false images that somebody has put into it.",
    "power": "the chance that a trial detects a difference that is there.",
    "pre-training": "training before the main training, here on pretext tasks, without labels.",
    "preset": "a named set of settings.",
    "pretext task": "a task whose answers cost nothing, such as by how much an image was turned; it makes a model learn from images without labels.",
    "PRIME": "an augmentation that draws from large families of changes (Modas et al. 2022).",
    "radius": "how far an attack may change an image.",
    "randomised smoothing": "a proof of robustness: the answer that most noisy copies of an image get (Cohen et al. 2019).",
    "real": "said of a difference: too large to be chance, even though many things were compared.",
    "recipe": "settings that belong together.",
    "robust accuracy": "accuracy on images that an attack has changed as far as it may: an upper bound, as a stronger attack may find more.",
    "rotation": "a pretext task: to recognise by which angle an image was turned: 0, 90, 180 or 270 degrees.",
    "run folder": "the folder of a run with out=, with weights, settings and logs.",
    "sanity checks": "checks for signs that a model is less robust than it seems.",
    "scatter": "how much results differ when the same is done again.",
    "screening": "the first stage of a trial: short runs of all arms, to keep the best.",
    "seed": "the number from which random choices follow; another seed gives another training by the same settings.",
    "self-training": "training on images without labels, with the answers of a teacher, such as the model before training, as labels.",
    "severity": "how strong a corruption is, from 1 to 5.",
    "SGD": "stochastic gradient descent: the usual optimiser, a rule by which the weights are changed at each step.",
    "significant": "too large to be explained by chance.",
    "strong": "an evaluation by three attacks one after the other, nearly as hard as AutoAttack and faster.",
    "Student's t": "a test of a mean of few numbers against their scatter.",
    "sweep": "attacks at several radii, to see how accuracy falls.",
    "teacher": "a model whose answers are used as labels for images without labels.",
    "TF32": "a way in which GPUs of NVIDIA multiply fp32 numbers faster and less exactly.",
    "theft of the model": "copying it by asking it often.",
    "threat model": "what an attacker may change, and how far: here a norm and eps.",
    "TRADES": "adversarial training that keeps the answers to changed images close to those to the unchanged images (Zhang et al. 2019).",
    "upper bound": "at most this; the true value may be lower.",
    "ViT": "vision transformer: a model that reads an image as a row of patches.",
    "weight": "one of the numbers inside a model that training changes; of a task or loss, how much it counts.",
    "white-box": "said of an attacker who knows the model and its weights.",
    "wide_pgd": "PGD in a ball of 1.25 times eps, at the end of training.",
    "worst class": "the class of which the model has the smallest share right.",
}
FORMS = {
    "accuracy": "accurac(?:y|ies)",
    "eps": "eps",
    "look": r"(?:the|each|every|last|first|next) looks?",
    "pre-training": "pre-?training",
    "radius": "radi(?:us|i)",
    "robust accuracy": "robust accurac(?:y|ies)",
    "Student's t": "Student['’]s t",
}
ENDINGS = "(?:s|es)?"


def without_code(text: str) -> str:
    """Return Markdown without its blocks of code."""
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)


def explained(text: str) -> dict[str, str]:
    """Return the words of the glossary that a text has, with their meanings, in alphabetical order.

    Example:
        >>> list(explained("Accuracies under attacks of PGD, by arms."))
        ['accuracy', 'arm', 'attack', 'PGD']
    """
    return {word: meaning for word, meaning in WORDS.items() if re.search(_pattern(word), text)}


def _pattern(word: str) -> str:
    form = FORMS.get(word, re.sub(r"\\[ -]", "[ -]", re.escape(word)) + ENDINGS)
    flags = "" if any(letter.isupper() for letter in word[1:]) else "(?i)"
    return rf"{flags}(?<![\w`.-]){form}(?!\w)"
