"""Training in several processes, one for each GPU of a machine: how they start, and what they exchange.

All processes draw the same batches and each takes its share, so that the state of one is the state of all.
`torch.nn.parallel.DistributedDataParallel` averages their gradients. In a single process, none of this has any effect.
"""

import logging
import os
import re
import sys
import uuid
from collections.abc import Callable

import torch
from torch import Tensor, distributed, nn
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from regnet.errors import RegNetError

log = logging.getLogger(__name__)


def launch(processes: int, function: Callable[..., None], *arguments: object) -> None:
    """Call a function once in this process, or in several new ones at the same time, through torchrun's API.

    Parameters
    ----------
    processes
        How many; 1 calls it in this process.
    function
        A function at the top level of a module.
    arguments
        Its arguments, which can be pickled.

    Raises
    ------
    RegNetError
        If one of several processes fails, with the reason of the first failure; the others are stopped.
    """
    if processes == 1:
        function(*arguments)
        return
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,
    )
    # torchrun logs its events: a line of JSON for every step of starting and ending.
    logging.getLogger("torchelastic-events-null").propagate = False
    try:
        elastic_launch(config, _in_process)(function, arguments)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        # A string if the process was killed, a mapping if it raised an exception.
        reason = failure.message if isinstance(failure.message, str) else failure.message["message"]
        raise RegNetError(f"process {rank + 1} of {processes}: {re.sub(r'^[A-Za-z]+Error: ', '', reason)}") from error


def _in_process(function: Callable[..., None], arguments: tuple) -> None:
    level = logging.INFO if os.environ["RANK"] == "0" else logging.ERROR
    logging.basicConfig(stream=sys.stderr, level=level, format="%(asctime)s %(message)s", force=True)
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    # Otherwise a process that ends at once closes connections that another still opens, and the wrong one fails.
    os.environ["TORCH_DIST_INIT_BARRIER"] = "1"
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        function(*arguments)
    except RegNetError:
        raise
    except Exception:
        log.exception("unexpected error")
        raise
    finally:
        distributed.destroy_process_group()


def process_count() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def process_number() -> int:
    """The number of this process, from 0; only the first one writes files."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def share() -> slice:
    """The part of a batch, or of any sequence, that belongs to this process."""
    return slice(process_number(), None, process_count())


def parallel(network: nn.Module, device: torch.device) -> nn.Module:
    """The module to call in training: the network itself, or a wrapper that averages the gradients of all processes.

    On GPUs, batch normalization then computes its statistics over the batches of all processes. torch cannot do that on CPUs:
    there each process has its own statistics, and the running ones are those of the first.
    """
    if process_count() == 1:
        return network
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(network)
    return nn.parallel.DistributedDataParallel(network, [device.index] if device.type == "cuda" else None)


def summed(values: Tensor) -> Tensor:
    """The sum of a tensor over all processes; each calls this at the same point."""
    if process_count() > 1:
        distributed.all_reduce(values)
    return values


def share_buffers(network: nn.Module) -> None:
    """Give all processes the running statistics of the first."""
    if process_count() > 1:
        for buffer in network.buffers():
            distributed.broadcast(buffer, 0)
