"""The device that a client host computes on: which it is, how PyTorch is set for it, and when it is lost."""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from fedbench.engine.messages import DeviceRecord, HostSpec
from fedbench.errors import ConfigError, LostDevice
from fedbench.training.out_of_memory import is_out_of_memory

CONTEXT_BYTES = 700 << 20
"""Memory of a GPU that each process takes beside what PyTorch allocates there: the context of CUDA, about half a GB,
and the workspaces of its libraries."""

MOST_STREAMS = 32
"""Streams that work at the same time on a GPU; PyTorch has no more of one priority, and gives the same ones again."""

SMALLEST_ROOM = 256 << 20
"""Memory of a GPU below which nothing is worth training on it."""

THREADS_PER_CORE = 4
FEWEST_THREADS = 8
"""Threads of PyTorch that are accepted on a machine with few cores."""


def choose_device(spec: HostSpec) -> torch.device:
    """The device that a host has to compute on; a GPU with its number.

    Raises:
        ConfigError: it is to be a GPU, or the precision needs one, and this process finds no CUDA.
    """
    if spec.device != "cpu":  # CUDA reads it once; of the default, 8, several streams of slots share one
        os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", str(MOST_STREAMS))
    finds_cuda = spec.device != "cpu" and torch.cuda.is_available()
    if spec.device == "cuda" and not finds_cuda:
        built = "finds no usable GPU" if torch.version.cuda else "was built without CUDA"
        raise ConfigError(
            f"runtime.device=cuda: PyTorch {torch.__version__} {built} on {os.uname().nodename}; mend that, or set "
            "runtime.device=cpu to train without GPUs"
        )
    if spec.precision == "tf32" and not finds_cuda:
        raise ConfigError("local.precision=tf32: only GPUs compute in TF32, and this run is on a CPU; set float32")
    return torch.device("cuda", torch.cuda.current_device()) if finds_cuda else torch.device("cpu")


def memory_fraction(share: float, total: int) -> float:
    """The fraction of a GPU's memory that one process may allocate, when each leaves room for the context of CUDA.

    Args:
        share: share of the GPU that each of its processes has.
        total: bytes of the GPU's memory.

    Raises:
        ConfigError: so many processes leave each other no memory.

    >>> round(memory_fraction(0.25, 24 << 30), 4)
    0.2215
    """
    processes = max(1, int(1 / share + 1e-9))
    room = total - processes * CONTEXT_BYTES
    if room * share < SMALLEST_ROOM:
        raise ConfigError(
            f"runtime.gpus_per_client={share:g}: {processes} processes on a GPU of {total / 2**30:.1f} GiB leave each "
            f"less than {SMALLEST_ROOM >> 20} MiB beside its context of {CONTEXT_BYTES >> 20} MiB; give each more"
        )
    return min(1.0, share) * room / total


class TorchSettings:
    """PyTorch's settings of this process as they are now, to be put back after a run."""

    def __init__(self) -> None:
        self._threads = torch.get_num_threads()
        self._deterministic = torch.are_deterministic_algorithms_enabled()
        self._fills = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
        self._benchmark = torch.backends.cudnn.benchmark
        self._convolutions_in_tf32 = torch.backends.cudnn.allow_tf32
        self._products = torch.get_float32_matmul_precision()

    def restore(self) -> None:
        """Put the settings back."""
        torch.set_num_threads(self._threads)
        if torch.are_deterministic_algorithms_enabled() != self._deterministic:  # the call imports PyTorch's compiler
            torch.use_deterministic_algorithms(self._deterministic)
        torch.utils.deterministic.fill_uninitialized_memory = self._fills  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark = self._benchmark
        torch.backends.cudnn.allow_tf32 = self._convolutions_in_tf32
        torch.set_float32_matmul_precision(self._products)


@contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """Context in which a GPU computes in all 24 bits of float32; PyTorch lets convolutions round to 11 by itself."""
    if device.type != "cuda":
        yield
        return
    settings = TorchSettings()
    set_precision("float32")
    try:
        yield
    finally:
        settings.restore()


def configure_torch(spec: HostSpec, device: torch.device) -> None:
    """Set PyTorch up for a host: threads, and on a GPU its precision, deterministic kernels and share of memory.

    Raises:
        ConfigError: the machine has far fewer cores than threads are asked for, or the host's share of the GPU is too
            small.
    """
    most = max(THREADS_PER_CORE * (os.cpu_count() or 1), FEWEST_THREADS)
    if spec.torch_threads > most:  # they would wait for each other without end
        raise ConfigError(
            f"runtime.torch_threads={spec.torch_threads}: the machine has {os.cpu_count()} cores; at most {most}"
        )
    torch.set_num_threads(spec.torch_threads)
    if device.type == "cuda":
        set_precision(spec.precision)
        set_determinism(spec.deterministic)
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(memory_fraction(spec.gpu_fraction, total), device)


def set_precision(precision: str) -> None:
    """Set the precision of convolutions and matrix products on a GPU; PyTorch's own default mixes the two.

    Args:
        precision: float32 and bf16: what is computed in float32 has all of its 24 bits. tf32: convolutions and matrix
            products round their inputs to 11 bits.
    """
    rounds = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = rounds
    torch.set_float32_matmul_precision("high" if rounds else "highest")


def set_determinism(deterministic: bool) -> None:
    """Choose between kernels that give the same bits each time, and any kernels."""
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(deterministic)
    # With it each new tensor is filled by a kernel of its own, though no kernel here reads what it has not written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def device_record(device: torch.device) -> DeviceRecord:
    """What is recorded of a device."""
    if device.type != "cuda":
        return DeviceRecord("CPU")
    return DeviceRecord(
        torch.cuda.get_device_name(device),
        cuda=torch.version.cuda,
        cudnn=torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        tf32=torch.backends.cudnn.allow_tf32,
    )


def forget_earlier_work(device: torch.device) -> None:
    """Free what earlier experiments of this process have left on a GPU, and measure its use of memory anew."""
    if device.type == "cuda":
        gc.collect()  # a module and its hooks may refer to each other
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def check_device(error: BaseException, device: torch.device) -> None:
    """Find out whether an error has left the device unusable, as a failed assertion in a CUDA kernel does.

    Raises:
        LostDevice: it has. Whatever this process does on the GPU from now on fails, too.
    """
    if isinstance(error, LostDevice):
        raise error
    lost = isinstance(error, torch.AcceleratorError) and not is_out_of_memory(error)
    if not lost and device.type == "cuda":
        try:
            torch.cuda.synchronize(device)
        except RuntimeError:
            lost = True
    if lost:
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise LostDevice(f"a process has lost its GPU: {first_line}") from error


def explained(error: Exception) -> Exception:
    """The error, with the option that helps added to its text where it is about determinism or a GPU's memory."""
    if "use_deterministic_algorithms" in str(error):
        return _caused(error, f"{error} (set runtime.deterministic=false to allow it: results may then differ)")
    if is_out_of_memory(error):
        return _caused(
            error,
            f"{error} (set a smaller local.batch_size, or fewer processes on each GPU by a larger "
            "runtime.gpus_per_client)",
        )
    return error


def _caused(error: Exception, text: str) -> Exception:
    """An error with another text, whose traceback ends in that of the first."""
    clear = RuntimeError(text)
    clear.__cause__ = error
    return clear
