# SPDX-License-Identifier: Apache-2.0
"""One rank of two, of the measurement of DDP and FSDP2. Started by fsdp_record.py; knows PyTorch, not how its link is
shaped.

`local` and `ddp`: bf16 autocast over float32 parameters. `fsdp`: FSDP2's `fully_shard` of every block and of the root,
gathered in bfloat16, gradients summed in float32. `local16`: what the device and the host do of that without FSDP2, the
parameters in bfloat16 and no autocast. Fused AdamW, random weights, random tokens, other ones in each rank.
"""

import argparse
import gc
import gzip
import json
import os
import pathlib
import shutil
import tempfile
import time

import torch
import torch.distributed as dist
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from kernel_counters import Watched, offloads, tcp_settings
from rank_processes import serve
from training import adamw, data_parallel, first_module, fully_sharded, random_tokens, take_step

PRODUCT_WIDTH = 4096
# Sequences by tokens of a step that has so little to compute that its host sets the pace.
FEW = (1, 16)


def configuration(model: str, small: bool) -> tuple[type, object, tuple[int, int]]:
    """Class, configuration, and sequences by tokens of a step."""
    if model == "gpt2":
        config = GPT2Config(n_layer=2, n_embd=64, n_head=2, vocab_size=512) if small else GPT2Config()
        return GPT2LMHeadModel, config, (2, 32) if small else (4, 1024)
    sizes = {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2, "vocab_size": 512} if small else \
            {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 16, "num_attention_heads": 32,
             "num_key_value_heads": 8, "vocab_size": 32000}
    return LlamaForCausalLM, LlamaConfig(max_position_embeddings=2048, tie_word_embeddings=False, **sizes), \
        (2, 32) if small else (4, 2048)


class Built:
    """A model as one of `local`, `local16`, `ddp`, `fsdp` trains it."""

    def __init__(self, model: str, mode: str, device: torch.device, rank: int, small: bool):
        kind, config, shape = configuration(model, small)
        self.mode = mode
        module = first_module(kind, config, device)
        self.parameters = sum(parameter.numel() for parameter in module.parameters())
        self.tokens, self.few_tokens = random_tokens(config.vocab_size, [shape, FEW], device, rank)
        if mode == "local16":
            for parameter in module.parameters():  # Not buffers: FSDP2 leaves these as they are.
                parameter.data = parameter.data.to(torch.bfloat16)
        elif mode == "ddp":
            module = data_parallel(module, init_sync=False)
        elif mode == "fsdp":
            module = fully_sharded(module)
        self.module, self.optimizer = module, adamw(module, device)

    def step(self, few: bool = False):
        autocast = self.mode not in ("fsdp", "local16")
        take_step(self.module, self.optimizer, self.few_tokens if few else self.tokens, autocast)


class Rank:
    def __init__(self, options: argparse.Namespace):
        self.rank, self.store, self.interface = options.rank, options.store, options.interface
        self.rehearse, self.world = options.rehearse, 2
        self.built: dict[str, Built] = {}
        if self.rehearse:
            self.device = torch.device("cpu")
        else:
            self.device = torch.device("cuda", self.rank)
            torch.cuda.set_device(self.device)

    def synchronize(self):
        if not self.rehearse:
            torch.cuda.synchronize()

    def align(self):
        """Lets the ranks start the next thing together."""
        dist.all_reduce(torch.zeros(1, device=self.device))
        self.synchronize()

    def mark(self):
        if self.rehearse:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def between(self, begin, end) -> float:
        return end - begin if self.rehearse else begin.elapsed_time(end) / 1e3

    # -- commands ------------------------------------------------------------------------------------------------

    def describe(self) -> dict:
        answer = {"torch": torch.__version__, "host_cores": os.cpu_count()}
        if self.interface:
            answer |= {"offloads": offloads(self.interface), "tcp": tcp_settings(),
                       "mtu_bytes": int(pathlib.Path(f"/sys/class/net/{self.interface}/mtu").read_text())}
        if not self.rehearse:
            answer |= {"nccl": ".".join(map(str, torch.cuda.nccl.version())), "cuda": torch.version.cuda,
                       "device": torch.cuda.get_device_name(self.device)}
        return answer

    def connect(self, port: int) -> dict:
        dist.init_process_group("gloo" if self.rehearse else "nccl", init_method=f"tcp://{self.store}:{port}",
                                rank=self.rank, world_size=self.world)
        self.align()
        return {}

    def build(self, model: str, mode: str, warmup: int) -> dict:
        """Makes a model and takes `warmup` steps (DDP plans its buckets anew after the first). `allocated_before_bytes`
        is what others left: 0 where peaks of memory are to be the model's own."""
        before = 0 if self.rehearse else torch.cuda.memory_allocated()
        built = self.built[f"{model}/{mode}"] = Built(model, mode, self.device, self.rank, self.rehearse)
        for _ in range(warmup):
            built.step()
        self.synchronize()
        return {"parameters": built.parameters, "batch": list(built.tokens.shape), "allocated_before_bytes": before}

    def drop(self, model: str, mode: str) -> dict:
        del self.built[f"{model}/{mode}"]
        gc.collect()
        if not self.rehearse:
            torch.cuda.empty_cache()
        return {}

    def steps(self, model: str, mode: str, warmup: int, steps: int, synchronized: int, few: bool = False,
              align: bool = True) -> dict:
        """`seconds`: between the ends of steps on the device, the host free to run ahead; `host_seconds`: between those
        of the host's calls, the first from `host_clock_seconds` on, by a clock that all ranks of a machine share;
        `synchronized_seconds`: of steps between which the host waits for the device. Lists are in order. `few`: of so
        few tokens that the host sets the pace."""
        step = self._step(model, mode, few)
        for _ in range(warmup):
            step()
        if not self.rehearse:
            torch.cuda.reset_peak_memory_stats()
        if align and dist.is_initialized():
            self.align()
        self.synchronize()
        with Watched() as watched:
            marks, host = [self.mark()], [time.perf_counter()]
            for _ in range(steps):
                step()
                marks.append(self.mark())
                host.append(time.perf_counter())
            self.synchronize()
            whole = time.perf_counter() - host[0]
        answer = {"seconds": [self.between(a, b) for a, b in zip(marks, marks[1:])], "mean_seconds": whole / steps,
                  "host_clock_seconds": host[0], "host_seconds": [b - a for a, b in zip(host, host[1:])],
                  "watched": watched.counted}
        waited = []
        for _ in range(synchronized):
            begin = time.perf_counter()
            step()
            self.synchronize()
            waited.append(time.perf_counter() - begin)
        if waited:
            answer["synchronized_seconds"] = waited
        if not self.rehearse:
            answer |= {"peak_bytes": torch.cuda.max_memory_allocated(),
                       "peak_reserved_bytes": torch.cuda.max_memory_reserved()}
        return answer

    def collective(self, op: str, size_bytes: int, warmup: int, repeats: int) -> dict:
        """Float32, `size_bytes` of one rank's input (all_reduce, all_gather) or output (reduce_scatter).
        `blocking_seconds`: each call waited for; `queued_seconds`: mean of as many calls in a row."""
        call = self._collective(op, size_bytes)
        for _ in range(warmup):
            call()
        self.align()
        with Watched() as watched:
            blocking = []
            for _ in range(repeats):
                begin = time.perf_counter()
                call()
                self.synchronize()
                blocking.append(time.perf_counter() - begin)
            begin = time.perf_counter()
            for _ in range(repeats):
                call()
            self.synchronize()
            queued = (time.perf_counter() - begin) / repeats
        return {"op": op, "bytes": size_bytes, "blocking_seconds": blocking, "queued_seconds": queued,
                "watched": watched.counted}

    def _collective(self, op: str, size_bytes: int):
        mine = torch.randn(size_bytes // 4, device=self.device)
        if op == "all_reduce":
            return lambda: dist.all_reduce(mine)
        whole = torch.randn(self.world * (size_bytes // 4), device=self.device)
        if op == "all_gather":
            return lambda: dist.all_gather_into_tensor(whole, mine)
        return lambda: dist.reduce_scatter_tensor(mine, whole)

    def beside(self, size_bytes: int, calls: int) -> dict:
        """All-reduces and kernels, each alone and both at once: seconds a call and seconds a kernel. `product`: bfloat16,
        4096 cubed; `copy`: 256 MiB inside the device. Kernels beside are those that ended before the last call did."""
        mine = torch.randn(size_bytes // 4, device=self.device)
        a, b = (torch.randn(PRODUCT_WIDTH, PRODUCT_WIDTH, device=self.device, dtype=torch.bfloat16) for _ in range(2))
        c = torch.empty_like(a)
        source = torch.randn(1 << 26, device=self.device)
        target = torch.empty_like(source)
        kernels = {"product": lambda: torch.matmul(a, b, out=c), "copy": lambda: target.copy_(source)}
        call_seconds = self._at_once(mine, calls, None, 0)[0]
        answer = {"bytes": size_bytes, "calls": calls, "alone_call_seconds": call_seconds}
        for name, kernel in kernels.items():
            self._at_once(mine, 0, kernel, 20)
            alone = self._at_once(mine, 0, kernel, 50)[1]
            count = min(int(1.5 * call_seconds * calls / alone) + 2, 5000)
            beside_call, beside = self._at_once(mine, calls, kernel, count)
            answer[name] = {"alone_seconds": alone, "beside_seconds": beside, "beside_call_seconds": beside_call}
        return answer

    def _at_once(self, tensor, calls: int, kernel, count: int) -> tuple[float | None, float | None]:
        """Seconds a call, and seconds a kernel of those that ended before the last call did (all, if there is none)."""
        self.align()
        begin, side = self.mark(), torch.cuda.Stream()
        handles = [dist.all_reduce(tensor, async_op=True) for _ in range(calls)]
        with torch.cuda.stream(side):
            for handle in handles:
                handle.wait()  # This stream waits, the kernels' does not.
            called = self.mark()
        marks = [begin]
        for _ in range(count):
            kernel()
            marks.append(self.mark())
        self.synchronize()
        call_seconds = self.between(begin, called)
        ends = [self.between(begin, mark) for mark in marks]
        within = [end for end in ends if calls == 0 or end <= call_seconds]
        return (call_seconds / calls if calls else None), (within[-1] / (len(within) - 1) if len(within) > 1 else None)

    def spans(self, model: str, mode: str) -> dict:
        """One step on the device, as the profiler sees it without the host: when each collective ran, and how long
        kernels did, in seconds from the step's first kernel."""
        self.align()
        begin = time.perf_counter()
        with torch.profiler.profile(activities=self._activities(host=False)) as profile:
            self.built[f"{model}/{mode}"].step()
            self.synchronize()
        seconds = time.perf_counter() - begin
        events = [event for event in self._events(profile) if event.get("cat") == "kernel"]
        if not events:
            return {}
        origin = min(event["ts"] for event in events)
        collectives = sorted((round((event["ts"] - origin) / 1e6, 6), round(event["dur"] / 1e6, 6),
                              event["name"].removeprefix("ncclDevKernel_").split("(")[0])
                             for event in events if "ncclDevKernel" in event["name"])
        compute = sorted((event["ts"], event["dur"]) for event in events if "ncclDevKernel" not in event["name"])
        return {"profiled_seconds": seconds, "collectives": collectives,
                "compute_busy_seconds": sum(duration for _, duration in compute) / 1e6,
                "compute_gaps": self._gaps(compute, origin)}

    @staticmethod
    def _gaps(compute: list[tuple[float, float]], origin: float) -> list[tuple[float, float]]:
        """Where no kernel computed for over 200 us: (from, for how long), in seconds."""
        gaps, end = [], origin
        for begin, duration in compute:
            if begin - end > 200:
                gaps.append((round((end - origin) / 1e6, 6), round((begin - end) / 1e6, 6)))
            end = max(end, begin + duration)
        return gaps

    def _step(self, model: str, mode: str, few: bool):
        built = self.built[f"{model}/{mode}"]
        return lambda: built.step(few)

    def trace(self, model: str, mode: str, file: str, stack: bool, few: bool = False) -> dict:
        """Two steps after three, by rank 0 into a file (.json.gz); other ranks take the same steps."""
        step = self._step(model, mode, few)
        if self.rank != 0:
            for _ in range(5):
                step()
            self.synchronize()
            return {}
        schedule = torch.profiler.schedule(wait=1, warmup=2, active=2, repeat=1)
        with torch.profiler.profile(activities=self._activities(host=True), schedule=schedule, record_shapes=True,
                                    with_stack=stack, with_modules=True) as profile:
            for _ in range(5):
                step()
                profile.step()
            self.synchronize()
        with tempfile.TemporaryDirectory() as folder:
            plain = pathlib.Path(folder, "trace.json")
            profile.export_chrome_trace(str(plain))
            with plain.open("rb") as source, gzip.open(file, "wb", compresslevel=6) as packed:
                shutil.copyfileobj(source, packed)
        return {"file": pathlib.Path(file).name, "bytes": pathlib.Path(file).stat().st_size}

    def _activities(self, host: bool):
        activity = torch.profiler.ProfilerActivity
        if self.rehearse:
            return [activity.CPU]
        return [activity.CPU, activity.CUDA] if host else [activity.CUDA]

    @staticmethod
    def _events(profile) -> list[dict]:
        with tempfile.NamedTemporaryFile(suffix=".json") as file:
            profile.export_chrome_trace(file.name)
            return json.loads(pathlib.Path(file.name).read_text())["traceEvents"]

    def close(self) -> dict:
        return {}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--store", required=True, help="address of rank 0")
    parser.add_argument("--interface", default="", help="of the rank's namespace; none where ranks are in none")
    parser.add_argument("--rehearse", action="store_true", help="tiny models on the CPU under gloo")
    serve(lambda: Rank(parser.parse_args()))


if __name__ == "__main__":
    main()
