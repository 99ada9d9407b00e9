# One rank of PyTorch DDP in the same set-up as bench/cluster/time-to-loss.ts, which starts it: Hugging Face's GPT-2 from the same weights, on
# the same batches, in eager mode under bf16 autocast with float32 weights and fused AdamW, gradients averaged as bfloat16 in buckets of
# 25 MiB. Takes a line of JSON for each run on its standard input, as runners.ts sends it, and answers with one.
import math
import pathlib
import sys
import time

for folder in ("native", "measured"):
    sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / folder))

import torch
import torch.distributed as dist
from torch_gpt2 import first_model, loss_of, tokens_of, windows
from torch_ranks import cuda, device, rank, ranks, serve, synchronize
from training import data_parallel_sending


def autocast():
    return torch.autocast("cuda" if cuda else "cpu", dtype=torch.bfloat16)


def train(folder, steps, evaluateEvery, batches, seed, batch, sizes, optimizer):
    model = first_model(folder, device, **sizes)
    context = sizes["n_positions"]
    text, held_out = (tokens_of(f"{folder}/{name}.bin", device) for name in ("train", "held-out"))
    rate, warmup = optimizer["learningRate"], optimizer["warmupSteps"]
    adamw = torch.optim.AdamW(model.parameters(), lr=rate, betas=(optimizer["beta1"], optimizer["beta2"]),
                              eps=optimizer["epsilon"], weight_decay=optimizer["weightDecay"], fused=cuda)

    def held_out_loss():
        with torch.no_grad(), autocast():
            losses = [loss_of(model, windows(held_out, seed, -1, index, batch, context)).float() for index in range(batches)]
        loss = torch.stack(losses).mean().item()
        if not math.isfinite(loss):  # JSON has no word for it, and no run that has one is of use
            raise FloatingPointError(f"held-out loss {loss}: the training has diverged")
        return loss

    initial_loss = held_out_loss()
    copies = [[torch.empty_like(parameter) for parameter in model.parameters()] for _ in range(steps // evaluateEvery)]
    wrapped = data_parallel_sending("bfloat16", model, device)
    synchronize()
    dist.barrier()
    began, seconds = None, []
    for step in range(steps):
        for group in adamw.param_groups:
            group["lr"] = rate * (step + 1) / warmup if step < warmup else rate
        with autocast():
            loss = loss_of(wrapped, windows(text, seed, rank, step, batch, context))
        loss.backward()
        adamw.step()
        adamw.zero_grad(set_to_none=True)
        if step == 0:
            synchronize()
            began = time.perf_counter()
        if (step + 1) % evaluateEvery == 0:
            with torch.no_grad():
                for copy, parameter in zip(copies[len(seconds)], model.parameters()):
                    copy.copy_(parameter)
            synchronize()
            seconds.append(time.perf_counter() - began)
    points = []
    for index, copy in enumerate(copies):
        with torch.no_grad():
            for parameter, value in zip(model.parameters(), copy):
                parameter.copy_(value)
        points.append({"step": (index + 1) * evaluateEvery, "seconds": seconds[index], "loss": held_out_loss()})
    return {"initialLoss": initial_loss, "points": points}


def run(**asked):
    own = train(**asked)
    all_ranks = [None] * ranks
    dist.all_gather_object(all_ranks, own)
    return {"ranks": all_ranks}


serve(run)
