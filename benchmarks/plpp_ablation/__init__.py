"""The ablation of PLPP: one option at a time around its defaults, and the controls, on validation images only."""
