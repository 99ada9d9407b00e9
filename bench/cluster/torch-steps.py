# One rank of PyTorch training the model of bench/cluster/what-if.ts, which starts it, over the same links: Hugging Face's GPT-2 or Llama of
# the scenario's sizes, without dropout, random weights and tokens, in eager mode, float32 masters, fused AdamW. Whole models under DDP and
# bf16 autocast; models in parts under HSDP, gathered in bfloat16 inside a site, gradients summed in float32. Takes for each run how long
# to measure, and answers with the median step of the slowest rank.
import json
import math
import pathlib
import statistics
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "measured"))

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch_ranks import cuda, device, rank, ranks, serve, synchronize, versions
from training import adamw, data_parallel_sending, first_module, fully_sharded, random_tokens, take_step
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

asked = json.loads(sys.argv[2])
# A group of steps is as long as the one before where they differ by no more.
STEADY_SHARE = 0.05
FEWEST_STEPS = 3


def configured(family, sizes):
    # Tokens that begin and end a text, which a small vocabulary has not where models are used to have them.
    any_vocabulary = {"bos_token_id": 0, "eos_token_id": 0}
    if family == "gpt2":
        without_dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
        return GPT2LMHeadModel, GPT2Config(use_cache=False, **without_dropout, **any_vocabulary, **sizes)
    return LlamaForCausalLM, LlamaConfig(use_cache=False, **any_vocabulary, **sizes)


def slowest(seconds):
    """The same in all ranks."""
    value = torch.tensor(seconds, dtype=torch.float64, device=device)
    dist.all_reduce(value, dist.ReduceOp.MAX)
    return value.item()


class Trained:
    def __init__(self, mode, family, sizes, vocabulary, batch, context, hosts, wire):
        module = first_module(*configured(family, sizes), device)
        (self.tokens,) = random_tokens(vocabulary, [(batch, context)], device, rank)
        self.autocast = mode == "ddp"
        if mode == "ddp":
            self.module = data_parallel_sending(wire, module, device)
        else:
            mesh = init_device_mesh(device.type, (hosts, ranks // hosts), mesh_dim_names=("replicate", "shard"))
            self.module = fully_sharded(module, mesh)
        self.optimizer = adamw(self.module, device)

    def timed(self, count):
        """Seconds of each of so many steps, between their ends on the device; ranks begin together, and their hosts may run ahead."""
        slowest(0.0)
        marks = [self.mark()]
        for _ in range(count):
            take_step(self.module, self.optimizer, self.tokens, self.autocast)
            marks.append(self.mark())
        synchronize()
        return [begin.elapsed_time(end) / 1e3 if cuda else end - begin for begin, end in zip(marks, marks[1:])]

    @staticmethod
    def mark():
        if not cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def warm_up(self, most_seconds):
        """Steps until a group of them takes as long as the one before: how many, how long each took, and whether they came to that.
        The first two connect ranks, and lay DDP's buckets out anew."""
        taken, count, last, steady = 2, 1, None, False
        whole = slowest(sum(self.timed(2)))
        while not steady and (last is None or whole < most_seconds):
            mean = slowest(sum(self.timed(count)) / count)
            taken += count
            whole += count * mean
            steady = last is not None and abs(mean / last - 1) <= STEADY_SHARE
            last = mean
            count = min(20, max(1, math.ceil(0.25 / mean)))
        return taken, last, steady


trained = None


def run(measureSeconds, warmUpSeconds):
    global trained
    trained = trained or Trained(**asked)
    warmup_steps, mean, steady = trained.warm_up(warmUpSeconds)
    steps = max(FEWEST_STEPS, math.ceil(measureSeconds / mean))
    seconds = trained.timed(steps)
    return {"stepSeconds": slowest(statistics.median(seconds)), "meanSeconds": slowest(statistics.mean(seconds)), "steps": steps,
            "warmupSteps": warmup_steps, "steady": steady, "versions": versions()}


serve(run)
