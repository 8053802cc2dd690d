"""How the bundled demo model is made: training text, PyTorch model, training, GGUF export and measurement.

`scripts/make_demo_model.py` is the command; README.md in this folder says how to use it.
Only `model`, `optimizer`, `train` and `check` need PyTorch.
"""
