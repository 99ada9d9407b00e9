# One rank of PyTorch DDP in the same set-up as bench/cluster/time-to-loss.ts, which starts it: Hugging Face's GPT-2 from the same weights, on
# the same batches, in eager mode under bf16 autocast with float32 weights and fused AdamW, gradients averaged as bfloat16 in buckets of
# 25 MiB. Takes a line of JSON for each run on its standard input, as runners.ts sends it, and answers with one.
import json
import math
import os
import pathlib
import sys
import time
import traceback

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "native"))

import torch
import torch.distributed as dist
import transformers
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.nn.parallel import DistributedDataParallel
from torch_gpt2 import first_model, loss_of, tokens_of, windows

rank, ranks = int(os.environ["TANDEM_RANK"]), int(os.environ["TANDEM_WORLD_SIZE"])
cuda = sys.argv[1] == "cuda"
device = f"cuda:{rank}" if cuda else "cpu"


def synchronize():
    if cuda:
        torch.cuda.synchronize()


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
    wrapped = DistributedDataParallel(model, device_ids=[rank] if cuda else None, gradient_as_bucket_view=True,
                                      broadcast_buffers=False)
    if cuda:  # the hook is for NCCL alone; gloo sends float32
        wrapped.register_comm_hook(None, bf16_compress_hook)
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


def main():
    # Answers leave on the real standard output; whatever a library prints goes to standard error.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    os.environ["RANK"], os.environ["WORLD_SIZE"] = str(rank), str(ranks)
    torch.backends.cuda.matmul.allow_tf32 = False
    if cuda:
        torch.cuda.set_device(rank)
    else:
        torch.set_num_threads(1)
    dist.init_process_group("nccl" if cuda else "gloo", init_method="env://")
    if rank == 0:
        nccl = f", NCCL {'.'.join(map(str, torch.cuda.nccl.version()))}" if cuda else ""
        print(f"torch {torch.__version__}, transformers {transformers.__version__}{nccl}", file=sys.stderr)
    for line in sys.stdin:
        try:
            own = train(**json.loads(line))
            all_ranks = [None] * ranks
            dist.all_gather_object(all_ranks, own)
            answer = {"ranks": all_ranks}
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps({"answer": answer}), file=answers, flush=True)
        if cuda:
            torch.cuda.empty_cache()
    # Skip what an interpreter does at its end: wrapped models would outlive their process group.
    answers.flush()
    os._exit(0)


main()
