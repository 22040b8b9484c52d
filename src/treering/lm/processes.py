"""Several processes that train one model, as ``torchrun`` starts them: which one this is, what they share, tensors that
are spread over them.
"""

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from treering.lm.base import layers_of


def rank() -> int:
    """The number of this process; the first one tells, writes and judges."""
    return int(os.environ.get("RANK", "0"))


def count() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def of_host() -> int:
    """How many of them are on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def shared(what: str, make: Callable[[], str]) -> str:
    """What ``make`` gives, made by the first process of each host; the others wait for it. ``what`` is its name."""
    if count() == 1:
        return make()
    from torch.distributed import PrefixStore, rendezvous  # type: ignore[attr-defined]  # they are there

    meeting, _, _ = next(iter(rendezvous("env://")))
    store = PrefixStore("treering", meeting)
    key = f"{what} of host {os.environ.get('GROUP_RANK', '0')}"
    if os.environ.get("LOCAL_RANK", "0") == "0":
        store.set(key, make())
    store.wait([key], timedelta(days=1))
    return bytes(store.get(key)).decode()


def strategy(*, sharded: bool) -> Any:
    """Lightning's way to train: one process, DDP (a whole model in each), or FSDP (a shard of it in each)."""
    if sharded:
        from lightning.pytorch.strategies import ModelParallelStrategy

        return ModelParallelStrategy(data_parallel_size=count(), tensor_parallel_size=1)
    return "ddp" if count() > 1 else "auto"


def shard(model: Any, mesh: Any) -> None:
    """Spread the parameters of ``model`` over the devices of ``mesh``, layer by layer."""
    from torch.distributed.fsdp import fully_shard

    for layer in layers_of(model):
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)


def whole(tensor: Any) -> Any:
    """A tensor put together from its shards, in every process."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def placed(tensor: Any, like: Any) -> Any:
    """A whole tensor, sharded as another one is."""
    if not hasattr(like, "full_tensor"):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor, like.device_mesh, like.placements)
