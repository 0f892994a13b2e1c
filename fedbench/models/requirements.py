"""Requirements of the built-in models on the data and the task, each refused in one line where it is not met."""

from fedbench.errors import ModelError
from fedbench.models.base import Task

ROWS = ("classification", "multilabel", "regression")
"""Tasks with one vector of outputs for each row."""

IN_WORDS = {"image": "images", "text": "text", "array": "arrays"}
"""The kinds of data, in words."""

OTHER_MODELS = {
    "next_token": "each token; lstm and text-transformer have them",
    "segmentation": "each pixel; unet has them",
}
"""What a task needs outputs for, where it is not for each row, and the built-in models that give them."""


def image_shape(task: Task, model: str, smallest: int = 1, targets: tuple[str, ...] = ROWS) -> tuple[int, int, int]:
    """(H, W, C) of the task's images, or of its arrays with three dimensions, which are [C, H, W].

    Args:
        task: the task.
        model: the model's name, for the message.
        smallest: the least height and width that the model can take.
        targets: the tasks that the model has outputs for.

    Raises:
        ModelError: other data, images smaller than `smallest`, or another task.
    """
    check_target(task, model, targets)
    if task.kind == "image":
        height, width, channels = task.input_shape
    elif task.kind == "array" and len(task.input_shape) == 3:
        channels, height, width = task.input_shape
    else:
        raise ModelError(f"model.name={model}: needs images{but(task)}")
    if min(height, width) < smallest:
        raise ModelError(
            f"model.name={model}: needs images of at least {smallest}x{smallest}, these are {height}x{width}"
            " (cnn-bn and resnet8 take small ones)"
        )
    return height, width, channels


def series_shape(task: Task, model: str, smallest: int = 1) -> tuple[int, int]:
    """(C, L) of the task's arrays: C channels of L values; arrays [L] are one channel.

    Args:
        task: the task.
        model: the model's name, for the message.
        smallest: the least length that the model can take.

    Raises:
        ModelError: other data, shorter series, or another task.
    """
    check_target(task, model, ROWS)
    if task.kind != "array" or len(task.input_shape) > 2:
        raise ModelError(f"model.name={model}: needs series, arrays [channels, length]{but(task)}")
    channels, length = (1, *task.input_shape) if len(task.input_shape) == 1 else task.input_shape
    if length < smallest:
        raise ModelError(
            f"model.name={model}: needs series of at least {smallest} values, these have {length}; mlp takes short ones"
        )
    return channels, length


def row_values(task: Task, model: str) -> int:
    """Number of values of a row, whatever their shape.

    Raises:
        ModelError: text, whose values are no quantities, or a task with outputs for tokens or pixels.
    """
    check_target(task, model, ROWS)
    if task.kind == "text":
        raise ModelError(f"model.name={model}: needs arrays or images{but(task)}; lstm and text-transformer take text")
    values = 1
    for size in task.input_shape:
        values *= size
    return values


def text_length(task: Task, model: str, needed: str = "text") -> int:
    """L, the number of tokens of the task's texts.

    Args:
        task: the task.
        model: the model's name, for the message.
        needed: what the model takes, in words, for the message.

    Raises:
        ModelError: data that are no text, or a task with outputs for pixels.
    """
    check_target(task, model, (*ROWS, "next_token"))
    if task.kind != "text":
        raise ModelError(f"model.name={model}: needs {needed}{but(task)}")
    return task.input_shape[0]


def check_target(task: Task, model: str, targets: tuple[str, ...]) -> None:
    """Refuse a task that a model has no outputs for.

    Raises:
        ModelError: names the task, and a model that has such outputs.
    """
    if task.target in targets:
        return
    if task.target in ROWS:
        raise ModelError(f"model.name={model}: has no outputs for whole rows, which task={task.target} needs")
    raise ModelError(
        f"model.name={model}: has outputs for whole rows, and task={task.target} needs them for "
        f"{OTHER_MODELS[task.target]}"
    )


def but(task: Task) -> str:
    """What the data are instead, to end a message with."""
    shape = f" of shape {list(task.input_shape)}" if task.kind == "array" else ""
    return f", the data are {IN_WORDS[task.kind]}{shape}"
