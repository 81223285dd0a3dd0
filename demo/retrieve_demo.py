"""Find in an image what words mean, by a language model that chooses among candidate boxes."""

import sys
from pathlib import Path

# What is started as a file finds the package beside it, installed or not.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from llmdet.cli.retrieve import main
from llmdet.utils.cli import run_cli

if __name__ == "__main__":
    run_cli(main)
