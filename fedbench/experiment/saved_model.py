"""A run's model as the named tensors that its files hold."""

import numpy as np
import numpy.typing as npt

from fedbench.experiment.setup import Problem
from fedbench.protocol.layout import Vector


def named_tensors(problem: Problem, vector: Vector, statistics: Vector) -> dict[str, npt.NDArray[np.generic]]:
    """{name: array in its logical shape} of parameters, frozen ones included, and of the buffers that a model saves.

    The names are those of the network's `state_dict`: a tensor that has several is there under each.
    """
    layout = problem.layout
    of_buffers = {slot.name: slot.view(statistics) for slot in layout.statistics}
    tensors = {**layout.unflatten(vector), **of_buffers, **problem.constants}
    return {name: tensors[kept] for name, kept in problem.saved_names.items()}
