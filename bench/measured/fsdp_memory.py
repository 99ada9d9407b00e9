# SPDX-License-Identifier: Apache-2.0
"""What is in a GPU's memory at the worst moment of a step under FSDP2, tensor by tensor, as PyTorch's allocator tells it: two
ranks on one GPU, over loopback, for memory alone.

    python3 bench/measured/fsdp_memory.py llama1b > fsdp-memory.json    (a GPU, torch, transformers)
"""

import json
import os
import subprocess
import sys

import torch
import torch.distributed as dist

from fsdp_rank import Built

RANKS = 2
SETTLING_STEPS = 2
FRAMES = 5


def place(frames: list[dict]) -> str:
    """Where a tensor was made: Python's innermost frames, without those of calls alone; "" of what autograd made."""
    told = [f"{frame['filename'].rsplit('/', 1)[-1]}:{frame['line']} {frame['name']}" for frame in frames]
    return " < ".join([one for one in told if not one.startswith("module.py:")][:FRAMES])


def at_peak(events: list[dict]) -> dict[str, dict]:
    """Of an allocator's events, what is there when most is: bytes and tensors by place."""
    live, bytes_now, most, found = {}, 0, 0, {}
    for event in events:
        if event["action"] == "alloc":
            live[event["addr"]] = event
            bytes_now += event["size"]
            if bytes_now > most:
                most, found = bytes_now, dict(live)
        elif event["action"] == "free_completed":
            live.pop(event["addr"], None)
            bytes_now -= event["size"]
    rows: dict[str, dict] = {}
    for event in found.values():
        row = rows.setdefault(place(event.get("frames", [])), {"bytes": 0, "tensors": 0})
        row["bytes"] += event["size"]
        row["tensors"] += 1
    return rows


def run(rank: int, model: str):
    torch.cuda.set_device(0)
    dist.init_process_group("nccl", init_method="tcp://127.0.0.1:29555", rank=rank, world_size=RANKS)
    built = Built(model, "fsdp", torch.device("cuda"), rank, False)
    for _ in range(SETTLING_STEPS):
        built.step()
    torch.cuda.synchronize()
    idle = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    if rank == 0:
        torch.cuda.memory._record_memory_history(max_entries=200_000, stacks="python")
    built.step()
    torch.cuda.synchronize()
    if rank == 0:
        events = torch.cuda.memory._snapshot()["device_traces"][0]
        rows = sorted(at_peak(events).items(), key=lambda row: -row[1]["bytes"])
        told = {"model": model, "device": torch.cuda.get_device_name(), "torch": torch.__version__, "idleBytes": idle,
                "peakBytes": torch.cuda.max_memory_allocated(), "atPeak": [{"place": at, **row} for at, row in rows]}
        print(json.dumps(told, indent=1))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    if len(sys.argv) == 3:
        run(int(sys.argv[2]), sys.argv[1])
    else:
        # NCCL takes two ranks of one host on one GPU for a mistake.
        ranks = [subprocess.Popen([sys.executable, __file__, sys.argv[1], str(rank)],
                                  env={**os.environ, "NCCL_HOSTID": f"host {rank}", "NCCL_SOCKET_IFNAME": "lo",
                                       "NCCL_IB_DISABLE": "1"}) for rank in range(RANKS)]
        sys.exit(max(rank.wait() for rank in ranks))
