# SPDX-License-Identifier: Apache-2.0
"""Steps of PyTorch's training: a model of Hugging Face's with random weights on random tokens, whole under DDP or in parts
under FSDP2, in eager mode with fused AdamW. Knows neither which sizes are trained, nor how ranks are linked."""

import torch
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.nn.parallel import DistributedDataParallel

BUCKET_CAP_MB = 25


def first_module(kind: type, config, device: torch.device) -> torch.nn.Module:
    """With the same weights in every rank."""
    torch.manual_seed(0)
    with torch.device(device):
        module = kind(config)
    return module.to(device).train()


def random_tokens(vocabulary: int, shapes: list[tuple[int, int]], device: torch.device, rank: int) -> list[torch.Tensor]:
    """Sequences by tokens, other ones in each rank."""
    torch.manual_seed(1 + rank)
    return [torch.randint(vocabulary, shape, device=device) for shape in shapes]


def data_parallel(module: torch.nn.Module, **options) -> DistributedDataParallel:
    return DistributedDataParallel(module, bucket_cap_mb=BUCKET_CAP_MB, gradient_as_bucket_view=True, **options)


def data_parallel_sending(wire: str, module: torch.nn.Module, device: torch.device) -> DistributedDataParallel:
    """Whose gradients are averaged as `bfloat16` or as `float32`. The hook for the former is for NCCL alone: gloo sends float32."""
    cuda = device.type == "cuda"
    wrapped = data_parallel(module, device_ids=[device.index] if cuda else None, broadcast_buffers=False)
    if cuda and wire == "bfloat16":
        wrapped.register_comm_hook(None, bf16_compress_hook)
    return wrapped


def fully_sharded(module: torch.nn.Module, mesh=None) -> torch.nn.Module:
    """FSDP2 of every block and of the root: gathered in bfloat16, gradients summed in float32. Over a mesh of two dimensions
    it is HSDP: replicated along the first, in parts along the second."""
    try:
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
    except ImportError:
        raise NotImplementedError(f"torch {torch.__version__} has no torch.distributed.fsdp.fully_shard (FSDP2); "
                                  "2.6 and later do") from None
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    blocks = module.transformer.h if hasattr(module, "transformer") else module.model.layers
    for block in blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
    return fully_shard(module, mesh=mesh, mp_policy=policy)


def adamw(module: torch.nn.Module, device: torch.device) -> torch.optim.AdamW:
    return torch.optim.AdamW(module.parameters(), lr=1e-4, fused=device.type == "cuda")


def take_step(module: torch.nn.Module, optimizer: torch.optim.Optimizer, tokens: torch.Tensor, autocast: bool):
    """`autocast`: bfloat16 over float32 parameters; without, in what the parameters are gathered as."""
    with torch.autocast(tokens.device.type, dtype=torch.bfloat16, enabled=autocast):
        loss = module(input_ids=tokens, labels=tokens).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
