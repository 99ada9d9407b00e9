# One of the two ranks that throughput.ts measures beside: sends a tensor from rank 0 to rank 1 again and again, then averages it, by
# PyTorch's Gloo (Debian: apt-get install python3-torch). Rank 0 says how fast, in JSON.
import json
import sys
import time

import torch
import torch.distributed as dist

count, repeats = int(sys.argv[1]) // 4, int(sys.argv[2])
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method="env://")
rank = dist.get_rank()
x = torch.full((count,), float(rank))


def send():
    if rank == 0:
        dist.send(x, 1)
    else:
        dist.recv(x, 0)


def timed(act):
    act()
    dist.barrier()
    began = time.perf_counter()
    for _ in range(repeats):
        act()
    dist.barrier()
    return (time.perf_counter() - began) / repeats


seconds = {"sendSeconds": timed(send), "reduceSeconds": timed(lambda: dist.all_reduce(x))}
if rank == 0:
    print(json.dumps(seconds))
