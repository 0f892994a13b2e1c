"""Networks are tried out on the meta device without PyTorch's compiler, and PyTorch is afterwards as it was."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys
import torch
from fedbench.accounting.flops import StepFlops
from fedbench.models.base import LayerGroup, Task
from fedbench.experiment.contracts import check_optimizer
from fedbench.models.uncompiled import MARK, disabled_functions
from fedbench.training.optimizers import SGD, Adam

network = torch.nn.Sequential(
    torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.GELU(), torch.nn.GroupNorm(2, 4),
    torch.nn.Flatten(), torch.nn.Linear(4 * 36, 5),
)
group = LayerGroup("all", tuple(name for name, _ in network.named_parameters()))
task = Task(kind="image", input_shape=(8, 8, 3), classes=5)
print(StepFlops(network, [group], task).flops([0], 2))
check_optimizer(SGD(lr=0.1)), check_optimizer(Adam())
print("torch._dynamo" in sys.modules, len(disabled_functions()) > 0)
print(any(hasattr(function, MARK) for function in disabled_functions()))
torch.compiler.disable(lambda: None)()
print("torch._dynamo" in sys.modules)
print(StepFlops(network, [group], task).flops([0], 2))
"""


@pytest.mark.slow
def test_neither_counting_flops_nor_trying_an_optimizer_imports_the_compiler_and_flops_are_the_same_with_it() -> None:
    finished = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60)
    without, imported, marked, compiler, with_it = finished.stdout.splitlines() or [finished.stderr] * 5
    assert (imported, marked, compiler) == ("False True", "False", "True"), finished.stderr
    assert without == with_it
    # Per sample: 36 places x 4 filters x 27 weights, then 144 x 5; the convolution's inputs need no gradient.
    assert int(without) == 2 * 2 * (2 * 36 * 4 * 27 + 3 * 144 * 5)
