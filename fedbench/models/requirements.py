"""Requirements of the built-in models on the data: images that are large enough, or texts."""

from fedbench.errors import ModelError
from fedbench.models.base import Task


def image_shape(task: Task, model: str, smallest: int = 1) -> tuple[int, int, int]:
    """(H, W, C) of the task's images.

    Args:
        model: the model's name, for the message.
        smallest: the least height and width that the model can take.

    Raises:
        ModelError: a text task, or images smaller than `smallest`.
    """
    if task.kind != "image":
        raise ModelError(f"model.name={model}: needs images, the data are {task.kind}")
    height, width, channels = task.input_shape
    if min(height, width) < smallest:
        raise ModelError(
            f"model.name={model}: needs images of at least {smallest}x{smallest}, these are {height}x{width}"
            " (cnn-bn and resnet8 take small ones)"
        )
    return height, width, channels


def text_length(task: Task, model: str) -> int:
    """L, the number of tokens of the task's texts.

    Raises:
        ModelError: an image task.
    """
    if task.kind != "text":
        raise ModelError(f"model.name={model}: needs text, the data are {task.kind}s")
    return task.input_shape[0]
