"""What a trial compares: one file an arm, or a family of arms, one for each pretext task.

An arm is `(tasks) -> {name: phases}`, where a phase is {"pretrain" | "ordinary" | "harden": {setting: value}}, as in the
plan that people read, and `share` among the settings is the phase's share of the arm's compute.
"""
