"""What other packages may not do while they are imported, and may do again afterwards."""

import importlib
import sys

import matplotlib
import pytest
import torch

from llmdet.utils import import_hooks

SCRIPTED = torch.jit.ScriptFunction


def double(x: torch.Tensor) -> torch.Tensor:
    return 2 * x


@pytest.fixture
def imported_in(monkeypatch, tmp_path):
    """Import a module of this text in the context of another one."""

    def run(name, text):
        (tmp_path / "odd_module.py").write_text(text)
        monkeypatch.syspath_prepend(str(tmp_path))
        sys.modules.pop("odd_module", None)
        monkeypatch.setitem(import_hooks._CONTEXTS, "odd_module", import_hooks._CONTEXTS[name])
        return importlib.import_module("odd_module")

    return run


def test_data_sets_of_mmdet_print_nothing(imported_in, capsys):
    assert imported_in("mmdet.datasets", "print('no OneDL')\nx = 1").x == 1
    assert capsys.readouterr().out == ""


def test_optimizers_of_mmengine_find_no_transformers_and_all_others_do(imported_in):
    import transformers

    text = "try:\n    import transformers\nexcept ImportError:\n    transformers = None"
    assert imported_in("mmengine.optim.optimizer.builder", text).transformers is None
    assert sys.modules["transformers"] is transformers


def test_strategies_of_mmengine_find_no_deepspeed(imported_in):
    text = "try:\n    import deepspeed\nexcept ImportError:\n    deepspeed = None"
    assert imported_in("mmengine._strategy.deepspeed", text).deepspeed is None
    assert sys.modules.get("deepspeed", sys) is not None


def test_optimizers_of_torch_are_not_compiled_and_all_else_is(imported_in):
    text = "import torch\n@torch.jit.script\ndef plain(x):\n    return 2 * x"
    assert not isinstance(imported_in("torch.distributed.optim", text).plain, SCRIPTED)
    assert isinstance(torch.jit.script(double), SCRIPTED)


def test_pyplot_is_imported_when_it_is_used(imported_in, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("matplotlib.pyplot")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(matplotlib, "pyplot", raising=False)
    text = "import matplotlib.pyplot as plt\nfrom matplotlib.colors import to_rgb"
    module = imported_in("mmdet.utils.mot_error_visualize", text)
    assert "matplotlib.pyplot" not in sys.modules
    assert callable(module.plt.figure)
    assert module.plt.figure is sys.modules["matplotlib.pyplot"].figure


def test_functions_of_scipy_are_imported_when_they_are_called(imported_in, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("scipy.optimize")]:
        monkeypatch.delitem(sys.modules, name)
    text = "from scipy.optimize import linear_sum_assignment"
    module = imported_in("mmdet.models.task_modules.assigners.hungarian_assigner", text)
    assert "scipy.optimize" not in sys.modules
    rows, columns = module.linear_sum_assignment([[1, 0], [0, 1]])
    assert (rows.tolist(), columns.tolist()) == ([0, 1], [1, 0])
    assert "scipy.optimize" in sys.modules


def test_a_failing_import_leaves_no_trace(imported_in):
    for name in ("mmengine.optim.optimizer.builder", "torch.distributed.optim"):
        with pytest.raises(ZeroDivisionError):
            imported_in(name, "1 / 0")
    importlib.import_module("transformers")
    assert isinstance(torch.jit.script(double), SCRIPTED)
