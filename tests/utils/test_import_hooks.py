"""What other packages may not do while they are imported, and may do again afterwards."""

import importlib
import sys
from types import ModuleType

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
    module = imported_in("mmdet.models.dense_heads.clr_head.clr_head", text)
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


def test_what_is_not_installed_is_not_pretended(imported_in, monkeypatch):
    absent = import_hooks._when_used("no_package_of_this_name")
    monkeypatch.setitem(import_hooks._CONTEXTS, "another_module", absent)
    text = "try:\n    import no_package_of_this_name as it\nexcept ImportError:\n    it = None"
    assert imported_in("another_module", text).it is None


def test_a_package_that_waits_is_known_to_be_installed(imported_in, monkeypatch):
    monkeypatch.delitem(sys.modules, "wave", raising=False)
    monkeypatch.setitem(import_hooks._CONTEXTS, "another_module", import_hooks._when_used("wave"))
    text = "from importlib.util import find_spec\nknown = find_spec('wave')\nimport wave"
    module = imported_in("another_module", text)
    assert module.known is not None
    assert "wave" not in sys.modules
    assert callable(module.wave.open)
    assert "wave" in sys.modules


@pytest.fixture
def without_compiler(monkeypatch):
    """As before the import of PyTorch's compiler."""
    monkeypatch.setattr(import_hooks, "_MARKS", [])
    monkeypatch.delattr(torch, "_dynamo", raising=False)
    monkeypatch.delitem(sys.modules, "torch._dynamo", raising=False)


def test_the_compiler_learns_of_marked_functions_when_it_is_imported(
    without_compiler, imported_in, monkeypatch
):
    text = (
        "import torch\n"
        "@torch._dynamo.assume_constant_result\ndef constant(): return 1\n"
        "@torch.compiler.allow_in_graph\ndef allowed(): return 2\n"
        "@torch.compiler.disable\ndef disabled(): return 3\n"
    )
    module = imported_in("transformers.modeling_utils", text)
    assert "torch._dynamo" not in sys.modules
    assert "_dynamo" not in vars(torch)
    assert (module.constant(), module.allowed()) == (1, 2)

    told = {}
    compiler = ModuleType("torch._dynamo")
    compiler.assume_constant_result = lambda function: told.update(constant=function)
    compiler.allow_in_graph = lambda function: told.update(allowed=function)
    monkeypatch.setitem(sys.modules, "torch._dynamo", compiler)
    imported_in("torch._dynamo", "")
    assert told == {"constant": module.constant, "allowed": module.allowed}


def test_a_function_kept_from_the_compiler_runs(without_compiler, imported_in):
    text = "import torch\n@torch.compiler.disable\ndef disabled(x): return x + 1\n"
    disabled = imported_in("transformers.modeling_utils", text).disabled
    assert disabled.__wrapped__(1) == 2


def test_a_failing_import_leaves_no_trace(imported_in):
    marking = torch.compiler.allow_in_graph, torch.compiler.disable
    contexts = "mmengine.optim.optimizer.builder", "torch.distributed.optim"
    for name in (*contexts, "transformers.modeling_utils"):
        with pytest.raises(ZeroDivisionError):
            imported_in(name, "1 / 0")
    importlib.import_module("transformers")
    assert isinstance(torch.jit.script(double), SCRIPTED)
    assert marking == (torch.compiler.allow_in_graph, torch.compiler.disable)
