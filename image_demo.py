"""Find in images what a text names: python image_demo.py IMAGE CONFIG --weights W --text T."""

import runpy
from pathlib import Path

if __name__ == "__main__":
    demo = Path(__file__).resolve().parent / "demo" / "image_demo.py"
    runpy.run_path(str(demo), run_name="__main__")
