"""Errors that say that a GPU has no memory left, and a second attempt after them."""

from collections.abc import Callable
from traceback import clear_frames
from typing import TypeVar

import torch

Result = TypeVar("Result")

OUT_OF_MEMORY_SIGNS = (
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "DEVICE_ALLOCATION_FAILED",  # of cuDNN 9
    "unable to find an engine to execute this computation",  # PyTorch's word where no algorithm of cuDNN finds memory
)
"""Texts by which errors that are no `torch.OutOfMemoryError` say that a GPU has no memory left."""


def release_memory(device: torch.device) -> None:
    """Give memory of a GPU that no tensor uses back, so that whatever comes next finds it in one piece."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a GPU had no memory left; it can be used on."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in OUT_OF_MEMORY_SIGNS)


def without_frames(error: BaseException) -> None:
    """Take from an error the frames that it came through, whose tensors take memory as long as the error is known."""
    clear_frames(error.__traceback__)
    error.__traceback__ = error.__context__ = None


def retried_out_of_memory(attempt: Callable[[], Result], release: Callable[[], None]) -> Result:
    """What `attempt` returns; where a GPU has no memory left it is called once more after `release`."""
    try:
        return attempt()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    # Outside of the handler, where the traceback no longer holds the tensors of the first attempt.
    release()
    return attempt()
