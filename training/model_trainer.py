"""The seed's script: `python3 training/model_trainer.py --help`."""

from treering.cli.seed import train

train()
