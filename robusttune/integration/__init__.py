"""Adapters to other frameworks: Lightning, transformers, timm's training script, torchmetrics, MAITE; one file each."""
