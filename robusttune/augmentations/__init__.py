"""Augmentations of training images, one file each: made for a shape, then `(N,C,H,W) in [0,1] -> (N,C,H,W)`.

They draw from torch's global random states, as Kornia's do; `augment.applied` seeds these and puts them back.
"""
