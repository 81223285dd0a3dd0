"""What programs import before they do anything: a start costs what is imported, and no more."""

import json
import subprocess
import sys

import pytest

#: Programs of the repository that users start, and modules that are started with -m.
PROGRAMS = (
    "image_demo.py",
    "tools/train.py",
    "tools/test.py",
    "tools/evaluate.py",
    "tools/doctor.py",
    "tools/export.py",
    "tools/convert/checkpoint.py",
    "tools/convert/data.py",
    "tools/data_engine.py",
    "tools/analysis/browse.py",
    "tools/analysis/stats.py",
    "tools/benchmark/agent.py",
    "tools/benchmark/data.py",
    "tools/benchmark/storage.py",
)
#: Each takes a tenth of a second or more.
HEAVY = {"cv2", "matplotlib", "mmcv", "mmdet", "scipy", "torch", "torchvision", "transformers"}
#: What a detection in a picture does without. mmdet's data sets bring imgaug and scipy.stats,
#: PyTorch's compiler brings sympy and triton.
NOT_FOR_DETECTION = {
    "boto3",
    "imgaug",
    "llmdet.engine",
    "llmdet.evaluation",
    "matplotlib.pyplot",
    "mmdet.datasets",
    "mmdet.evaluation",
    "nltk",
    "peft",
    "scipy.optimize",
    "scipy.stats",
    "skimage.draw",
    "sympy",
    "tensorboard",
    "torch._dynamo",
    "trio",
    "triton",
}


def modules_of(root, *arguments, cwd=None):
    """Names of all modules that a program has imported when it ends, and how it ended."""
    code = (
        "import atexit, json, runpy, sys\n"
        "atexit.register(lambda: print('\\n' + json.dumps(list(sys.modules))))\n"
        "program = sys.argv[1]\n"
        "del sys.argv[0]\n"
        "runpy.run_path(program, run_name='__main__')\n"
    )
    program, *rest = arguments
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(root / program), *map(str, rest)],
        cwd=cwd or root,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    return set(json.loads(result.stdout.splitlines()[-1]))


def test_importing_llmdet_imports_nothing_else():
    code = "import sys; before = set(sys.modules); import llmdet; print(*set(sys.modules) - before)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    roots = {name.partition(".")[0] for name in result.stdout.split()}
    assert roots - {"llmdet"} <= sys.stdlib_module_names


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_waits_for_nothing_heavy(root, program):
    assert modules_of(root, program, "--help") & HEAVY == set()


def test_a_detection_imports_what_it_needs(root, tiny, photos, tmp_path):
    modules = modules_of(
        root, "image_demo.py", photos / "astronaut.png", tiny.config, "--weights", tiny.weights,
        "--text", "apple .", "-c", "--device", "cpu", cwd=tmp_path,
    )  # fmt: skip
    assert "llmdet.apis.detector" in modules
    assert modules & NOT_FOR_DETECTION == set()
