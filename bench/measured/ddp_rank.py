# SPDX-License-Identifier: Apache-2.0
"""One rank of the measurement: trains GPT-2 and times it. Started by ddp_shaped.py, once per rank.

Reads one JSON command a line on standard input and answers each with one JSON line. Knows PyTorch and nothing
of how its link is shaped.
"""

import argparse
import copy
import gc
import json
import os
import pathlib
import tempfile
import time

import torch
import torch.distributed as dist
from torch.distributed.algorithms.model_averaging.averagers import PeriodicModelAverager
from torch.nn.parallel import DistributedDataParallel
from transformers import GPT2Config, GPT2LMHeadModel

from kernel_counters import offloads, tcp_settings
from rank_processes import serve


class Rank:
    def __init__(self, options: argparse.Namespace):
        self.rank, self.ranks, self.store = options.rank, options.ranks, options.store
        self.rehearse = options.rehearse
        self.device = torch.device("cpu" if self.rehearse else "cuda:0")
        config = GPT2Config(n_layer=2, n_embd=128, n_head=2, vocab_size=1024) if self.rehearse else GPT2Config()
        batch, tokens = (2, 64) if self.rehearse else (4, 1024)
        torch.manual_seed(0)  # the same weights in every rank
        self.initial_model = GPT2LMHeadModel(config).to(self.device).train()
        torch.manual_seed(1 + self.rank)
        self.tokens = torch.randint(config.vocab_size, (batch, tokens), device=self.device)

    # -- small parts ---------------------------------------------------------------------------------------------

    def synchronize(self):
        if not self.rehearse:
            torch.cuda.synchronize()

    def align(self):
        """Lets the ranks start the next thing together."""
        token = torch.zeros(1, device=self.device)
        dist.all_reduce(token)
        self.synchronize()

    def fresh_model(self):
        gc.collect()
        if not self.rehearse:
            torch.cuda.empty_cache()
        model = copy.deepcopy(self.initial_model)
        return model, torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def loss(self, model) -> torch.Tensor:
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            return model(input_ids=self.tokens, labels=self.tokens).loss

    def timed_steps(self, step, warmup: int, steps: int) -> list[float]:
        """Seconds of each of `steps` calls of `step`, the device idle before and after each."""
        for _ in range(warmup):
            step()
        self.align()
        seconds = []
        for _ in range(steps):
            begin = time.perf_counter()
            step()
            self.synchronize()
            seconds.append(time.perf_counter() - begin)
        return seconds

    # -- commands ------------------------------------------------------------------------------------------------

    def describe(self) -> dict:
        parameters = list(self.initial_model.named_parameters())
        answer = {
            "torch": torch.__version__,
            "parameters": sum(parameter.numel() for _, parameter in parameters),
            "parameter_tensors": [[name, parameter.numel()] for name, parameter in parameters],
            "buffers": [[name, buffer.numel()] for name, buffer in self.initial_model.named_buffers()],
            "offloads": offloads("eth0"),
            "interface_mtu_bytes": int(open("/sys/class/net/eth0/mtu").read()),
            "tcp": tcp_settings(),
            "host_cores": os.cpu_count(),
        }
        if not self.rehearse:
            answer |= {"nccl": ".".join(map(str, torch.cuda.nccl.version())), "device": torch.cuda.get_device_name(),
                       "multiprocessors_seen": torch.cuda.get_device_properties(0).multi_processor_count}
        return answer

    def connect(self, port: int) -> dict:
        """New connections (a new NCCL communicator), so that none remembers the speed of the link before."""
        if dist.is_initialized():
            dist.destroy_process_group()
        dist.init_process_group("gloo" if self.rehearse else "nccl", init_method=f"tcp://{self.store}:{port}",
                                rank=self.rank, world_size=self.ranks)
        self.align()
        return {}

    def all_reduce(self, size_bytes: int, warmup: int, repeats: int) -> dict:
        tensor = torch.ones(size_bytes // 4, dtype=torch.float32, device=self.device)
        self.align()
        for _ in range(warmup):
            dist.all_reduce(tensor)
            self.synchronize()
        seconds = []
        for _ in range(repeats):
            begin = time.perf_counter()
            dist.all_reduce(tensor)
            self.synchronize()
            seconds.append(time.perf_counter() - begin)
        ordered = sorted(seconds)
        return {"bytes": size_bytes, "seconds": sum(seconds) / repeats, "median_seconds": ordered[repeats // 2],
                "min_seconds": ordered[0], "max_seconds": ordered[-1], "warmup": warmup, "repeats": repeats}

    def local(self, warmup: int, steps: int) -> dict:
        """A training step without communication, and where its device time goes."""
        model, optimizer = self.fresh_model()
        marks = []

        def step():
            marks.append([self.mark()])
            loss = self.loss(model)
            marks[-1].append(self.mark())
            loss.backward()
            marks[-1].append(self.mark())
            optimizer.step()
            optimizer.zero_grad()
            marks[-1].append(self.mark())

        seconds = self.timed_steps(step, warmup, steps)
        phases = [[self.between(a, b) for a, b in zip(row, row[1:])] for row in marks[warmup:]]
        return {"seconds": seconds, "phase_seconds": phases}

    def mark(self):
        if self.rehearse:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def between(self, begin, end) -> float:
        return end - begin if self.rehearse else begin.elapsed_time(end) / 1e3

    def ddp(self, warmup: int, steps: int, bucket_cap_mb: float | None) -> dict:
        """DistributedDataParallel as people use it. The reducer plans its buckets anew after the first step."""
        model, optimizer = self.fresh_model()
        wrapped = DistributedDataParallel(model, bucket_cap_mb=bucket_cap_mb, gradient_as_bucket_view=True,
                                          init_sync=False)

        def step():
            self.loss(wrapped).backward()
            optimizer.step()
            optimizer.zero_grad()

        return {"seconds": self.timed_steps(step, warmup, steps), "logging": wrapped._get_ddp_logging_data()}

    def bucket_timeline(self, warmup: int, steps: int, bucket_cap_mb: float | None) -> dict:
        """When each bucket's all-reduce ran on the device, in seconds from the first kernel of the step, as the
        profiler saw it. (A communication hook with events would be simpler, but the extra streams of its futures
        delay the backward pass behind the all-reduces when ranks share a GPU.)"""
        model, optimizer = self.fresh_model()
        wrapped = DistributedDataParallel(model, bucket_cap_mb=bucket_cap_mb, gradient_as_bucket_view=True,
                                          init_sync=False)

        def step():
            self.loss(wrapped).backward()
            optimizer.step()
            optimizer.zero_grad()
            self.synchronize()

        for _ in range(warmup):
            step()
        answer = []
        for index in range(1 + steps):  # the first profiled step pays for starting the profiler
            self.align()
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]
                                        if not self.rehearse else None) as profile:
                begin = time.perf_counter()
                step()
                seconds = time.perf_counter() - begin
            if index > 0:
                answer.append({"step_seconds": seconds, **self.device_spans(profile)})
        sizes = wrapped._get_ddp_logging_data()["rebuilt_bucket_sizes"]
        return {"bucket_bytes": [int(size) for size in sizes.split(",")], "steps": answer}

    @staticmethod
    def device_spans(profile) -> dict:
        with tempfile.NamedTemporaryFile(suffix=".json") as file:
            profile.export_chrome_trace(file.name)
            events = json.loads(pathlib.Path(file.name).read_text())["traceEvents"]
        kernels = sorted((event["ts"], event["ts"] + event["dur"], event["name"]) for event in events
                         if event.get("cat") == "kernel")
        if not kernels:
            return {}
        origin = kernels[0][0]
        spans = {"all_reduce": [], "compute": [], "optimizer": []}
        for begin, end, name in kernels:
            kind = "all_reduce" if "ncclDevKernel" in name else "optimizer" if "dam" in name else "compute"
            spans[kind].append(((begin - origin) / 1e6, (end - origin) / 1e6))
        first_update = spans["optimizer"][0][0]
        return {"all_reduce_spans": spans["all_reduce"],
                "compute_busy_seconds": sum(end - begin for begin, end in spans["compute"] if begin < first_update),
                "optimizer_start": first_update, "optimizer_end": spans["optimizer"][-1][1]}

    def local_sgd(self, period: int, rounds: int) -> dict:
        """Local SGD: every `period`-th step ends with a blocking average of all parameters, as one flat tensor."""
        model, optimizer = self.fresh_model()
        averager = PeriodicModelAverager(period=period, warmup_steps=0)

        def step():
            self.loss(model).backward()
            optimizer.step()
            averager.average_parameters(model.parameters())  # leaves out parameters without a gradient
            optimizer.zero_grad()

        # The averager averages at steps 0, period, 2 * period ...: the timed steps start with an averaging one.
        return {"period": period, "seconds": self.timed_steps(step, period, period * rounds)}

    def partial_local_sgd(self, period: int, rounds: int) -> dict:
        """Partial Local SGD, equal-number partition (Tang et al., DreamDDP, arXiv:2502.11058): the parameter tensors
        in backward order, cut in `period` runs of equal count; at step r the tensors of run r mod period are
        averaged in place, each as soon as its gradient is there, and all are waited for before the optimizer."""
        model, optimizer = self.fresh_model()
        order = list(model.parameters())[::-1]
        group_of = {id(parameter): index * period // len(order) for index, parameter in enumerate(order)}
        handles, count = [], [0]

        def hook(parameter):
            if group_of[id(parameter)] == count[0] % period:
                operation = dist.ReduceOp.SUM if self.rehearse else dist.ReduceOp.AVG
                handles.append(dist.all_reduce(parameter.data, op=operation, async_op=True))

        for parameter in order:
            parameter.register_post_accumulate_grad_hook(hook)

        def step():
            self.loss(model).backward()
            for handle in handles:
                handle.wait()
            handles.clear()
            optimizer.step()
            optimizer.zero_grad()
            count[0] += 1

        group_bytes = [0] * period
        for parameter in order:
            group_bytes[group_of[id(parameter)]] += parameter.numel() * 4
        return {"period": period, "group_bytes": group_bytes,
                "seconds": self.timed_steps(step, period, period * rounds)}

    def close(self) -> dict:
        if dist.is_initialized():
            dist.destroy_process_group()
        return {}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--ranks", type=int, required=True)
    parser.add_argument("--store", required=True, help="address of rank 0")
    parser.add_argument("--rehearse", action="store_true", help="a tiny model on the CPU under gloo")
    options = parser.parse_args()
    serve(lambda: Rank(options))


if __name__ == "__main__":
    main()
