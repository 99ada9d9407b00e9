#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Steps of PyTorch DDP and FSDP2 on two GPUs, and all that predicting them takes: how fsdp-h200x2.json was made.

GPT-2 124M and a Llama of 853M, two ranks of one machine, a GPU each. Over NVLink, each in processes of its own: local
steps by both processes at once, in autocast and with 16-bit parameters, steps under DDP and FSDP2, each also of so few
tokens that the host sets the pace, and peaks of memory; local steps and those under DDP or FSDP2 a few each in turn, as
hosts do not stay as fast as they were; and last profiler traces, which slow a process for good. Then over sockets
between network namespaces, unshaped and at several rates: collectives alone, and the same steps, with what TCP, the
token buckets and the threads counted meanwhile. Run as root on a Linux machine with two NVIDIA GPUs, PyTorch, transformers and iproute2:

    python3 fsdp_record.py --output out/

The result is written after each part; parts for which too little of `--budget-seconds` is left are left out, and named.
`--rehearse` takes the same way on tiny models on the CPU under gloo.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from ddp_shaped import bits_per_second
from rank_processes import RankFailure, Ranks, RanksLost
from shaped_network import BURST, INTERFACE, LATENCY, ShapedNetwork, counter_difference

RANK_PROGRAM = str(pathlib.Path(__file__).with_name("fsdp_rank.py"))
MIB = 1 << 20
FAILURES = (RuntimeError, OSError, subprocess.CalledProcessError)
MODELS = ("gpt2", "llama1b")
LOCAL = ("local", "local16")
SHARED = ("ddp", "fsdp")
# What the host does of each without communication.
LOCAL_OF = {"ddp": "local", "fsdp": "local16"}

# Sizes that the steps have (buckets of 25 MiB and one of the embedding; parts of blocks and of roots) lie between these.
WHOLE_SWEEP = [("all_reduce", MIB // 4 * size) for size in (1, 4, 16, 64, 128, 256, 640)] + \
              [("all_gather", MIB // 4 * size) for size in (1, 4, 16, 28, 64, 192, 512)] + \
              [("reduce_scatter", MIB // 4 * size) for size in (1, 4, 16, 56, 192, 384, 1024)]
SHORT_SWEEP = [(op, size * MIB) for op in ("all_reduce", "all_gather", "reduce_scatter") for size in (1, 16, 64)]
# Steps last about as long as their bytes do: so many bits on each link, of DDP and of FSDP, for time limits and counts alone.
STEP_BITS = {"gpt2": (4.0e9, 3.7e9), "llama1b": (27.4e9, 26.4e9)}
# What a link that is not shaped may carry, for the same.
UNSHAPED = {"nvlink": 1e12, "unshaped": 16e9}


def step_seconds(model: str, mode: str, link: str) -> float:
    rate = UNSHAPED.get(link) or bits_per_second(link)
    return 0.1 + STEP_BITS[model][SHARED.index(mode)] / rate


class Recorder:
    """What has been measured so far, on disk after each part, and how much time is left."""

    def __init__(self, folder: pathlib.Path, budget_seconds: float, rehearse: bool):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.rehearse = folder, rehearse
        self.started, self.budget = time.monotonic(), budget_seconds
        self.result = {"date": datetime.date.today().isoformat()[:7], "machine": machine(), "parts": [],
                       "left_out": [], "failures": [], "seconds": {}}

    def left(self) -> float:
        return self.budget - (time.monotonic() - self.started)

    def say(self, text: str):
        print(f"[{time.monotonic() - self.started:6.1f} s] {text}", file=sys.stderr, flush=True)

    def save(self):
        (self.folder / "fsdp.json").write_text(json.dumps(self.result) + "\n")

    @contextmanager
    def part(self, name: str, needs_seconds: float) -> Iterator[bool]:
        """A part that is left out where time is short, and whose failure the next one survives unless ranks are lost."""
        begin = time.monotonic()
        if self.left() < needs_seconds:
            self.result["left_out"].append(name)
            self.say(f"{name}: left out, {self.left():.0f} s are left and it may need {needs_seconds:.0f}")
            yield False
            return
        try:
            yield True
            self.say(f"{name}: done in {time.monotonic() - begin:.1f} s")
        except RankFailure as error:
            self.fail(name, error)
        finally:
            self.result["seconds"][name] = round(time.monotonic() - begin, 2)
            self.save()

    def fail(self, where: str, error: Exception):
        text = f"{where}: {error} {getattr(error, 'stderr', None) or ''}".strip()
        self.result["failures"].append(text)
        self.say(f"FAILED: {text}")
        self.save()

    def add(self, what: str, **row):
        self.result["parts"].append({"what": what, **row})
        self.save()

    def keep_trace(self, file: pathlib.Path):
        """Into the archive, which is whole after each."""
        with tarfile.open(self.folder / "traces.tar", "a") as archive:
            archive.add(file, arcname=file.name)
        file.unlink()


def machine() -> dict:
    facts = {"kernel": platform.release(), "cores": os.cpu_count()}
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            facts["cpu"] = line.split(":")[1].strip()
            break
    for name, command in (("gpus", ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]),
                          ("topology", ["nvidia-smi", "topo", "-m"])):
        try:
            facts[name] = subprocess.run(command, capture_output=True, text=True, timeout=20).stdout
        except (OSError, subprocess.SubprocessError) as error:
            facts[name] = str(error)
    return facts


COMMON = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "NCCL_NVLS_ENABLE": "0"}


def start_ranks(network: ShapedNetwork | None, rehearse: bool) -> Ranks:
    """Two ranks: in namespaces, as if on two machines, or where there is no network on one."""
    ranks = []
    for rank in range(2):
        options = ["--rank", str(rank), "--store", network.address(0) if network else "127.0.0.1"]
        environment, before = os.environ | COMMON, []
        if network:
            environment |= {"NCCL_HOSTID": f"host{rank}", "NCCL_SOCKET_IFNAME": INTERFACE,
                            "GLOO_SOCKET_IFNAME": INTERFACE, "NCCL_IB_DISABLE": "1"}
            options += ["--interface", INTERFACE]
            before = network.inside(rank)
        command = [*before, sys.executable, RANK_PROGRAM, *options, *["--rehearse"] * rehearse]
        ranks.append((command, environment))
    return Ranks(ranks)


class Pairs:
    """Pairs of ranks, each of processes of its own, so that none has what another left in memory. All are started before
    anything is measured; those that wait for a command take no CPU."""

    def __init__(self, names: list[str], recorder: Recorder):
        self.recorder = recorder
        self.waiting = {name: (start_ranks(None, recorder.rehearse), 29520 + index) for index, name in enumerate(names)}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for ranks, _ in self.waiting.values():
            ranks.__exit__()

    def describe(self) -> list[dict]:
        """Of the first pair, once all have imported PyTorch."""
        return [ranks.ask("describe", timeout_seconds=240) for ranks, _ in self.waiting.values()][0]

    @contextmanager
    def opened(self, name: str) -> Iterator[Ranks | None]:
        """A pair, connected; none where it fails. Its processes end with the block, and so does what it lost."""
        ranks, port = self.waiting.pop(name)
        with ranks:
            try:
                ranks.ask("connect", port=port)
            except (RankFailure, RanksLost) as error:
                self.recorder.fail(name, error)
                yield None
                return
            try:
                yield ranks
            except RanksLost as error:
                self.recorder.fail(name, error)


def middle(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


# -- over NVLink ---------------------------------------------------------------------------------------------------------


def record_nvlink(recorder: Recorder, pairs: Pairs, link: str):
    with pairs.opened("collectives") as ranks, recorder.part(f"{link}: collectives", 15) as there_is_time:
        if there_is_time and ranks:
            record_collectives(recorder, ranks, None, link, WHOLE_SWEEP)
            if not recorder.rehearse:
                recorder.add("beside", link=link, ranks=ranks.ask("beside", size_bytes=64 * MIB, calls=50))
    for model in MODELS:
        # The local pair stays, and tells in turn with the others how fast the hosts are.
        with pairs.opened(f"{model} local") as local:
            for mode in LOCAL:
                record_model(recorder, local, "none", model, mode)
            for mode in SHARED:
                with pairs.opened(f"{model} {mode}") as ranks:
                    record_model(recorder, ranks, link, model, mode)
                    record_turns(recorder, local, ranks, link, model, mode)
                    record_traces(recorder, ranks, link, model, mode)
            for mode in LOCAL:
                record_traces(recorder, local, "none", model, mode)


def record_model(recorder: Recorder, ranks: Ranks | None, link: str, model: str, mode: str):
    """Steps, and steps of few tokens, whose host sets the pace."""
    with recorder.part(f"{link}: {model} {mode}", 15) as there_is_time:
        if not there_is_time or not ranks:
            return
        built = ranks.ask("build", model=model, mode=mode, warmup=2)[0]
        recorder.add("model", model=model, mode=mode, **built)
        if mode == "ddp":
            record_steps(recorder, ranks, None, link, model, mode, warmup=0, steps=8, synchronized=0, early=True)
        record_steps(recorder, ranks, None, link, model, mode, warmup=3, steps=20, synchronized=10)
        if mode == "local":
            # The other one waits for its next command and takes no CPU.
            recorder.add("steps", link=link, model=model, mode=mode, few=True, processes=1,
                         ranks=ranks.ask("steps", only=0, align=False, model=model, mode=mode, warmup=2, steps=10,
                                         synchronized=0, few=True))
        record_steps(recorder, ranks, None, link, model, mode, warmup=2, steps=20, synchronized=0, few=True)


def record_turns(recorder: Recorder, local: Ranks | None, ranks: Ranks | None, link: str, model: str, mode: str):
    """A few steps each in turn, over and over: local ones of few tokens, those of few tokens under `mode`, and its own."""
    rounds, steps = 8, 5
    with recorder.part(f"{link}: {model} {mode} in turns", 25) as there_is_time:
        if not there_is_time or not local or not ranks:
            return
        kinds = (("none", local, LOCAL_OF[mode], True), (link, ranks, mode, True), (link, ranks, mode, False))
        medians = {}
        for turn in range(rounds):
            for at, pair, kind, few in kinds:
                answers = pair.ask("steps", model=model, mode=kind, warmup=1, steps=steps, synchronized=0, few=few)
                recorder.add("turn", round=turn, link=at, model=model, mode=kind, few=few, ranks=answers)
                medians.setdefault((kind, few), []).append(middle(answers[0]["seconds"]))
        recorder.say("; ".join(f"{link} {model} {kind}{', few tokens' if few else ''}: {min(times):.4f} to {max(times):.4f} s"
                               for (kind, few), times in medians.items()))


def record_traces(recorder: Recorder, ranks: Ranks | None, link: str, model: str, mode: str):
    """The same as the profiler sees them. Last of what a pair does: a process in which the profiler ran launches more
    slowly ever after, as CUPTI stays."""
    with recorder.part(f"{link}: {model} {mode} traces", 10) as there_is_time:
        if not there_is_time or not ranks:
            return
        if mode != "ddp":
            record_trace(recorder, ranks, model, mode, few=False)
        record_trace(recorder, ranks, model, mode, few=True)


def record_trace(recorder: Recorder, ranks: Ranks, model: str, mode: str, few: bool):
    name = f"{model}-{mode}-few" if few else f"{model}-{mode}"
    file = recorder.folder / f"{name}.pt.trace.json.gz"
    # Python's frames name modules; under FSDP2 its own annotations do.
    stack = mode != "fsdp"
    answer = ranks.ask("trace", model=model, mode=mode, file=str(file.absolute()), stack=stack, few=few)[0]
    recorder.keep_trace(file)
    recorder.add("trace", model=model, mode=mode, few=few, stack=stack, **answer)


# -- over sockets --------------------------------------------------------------------------------------------------------


def record_sockets(recorder: Recorder, network: ShapedNetwork, ranks: Ranks, links: list[str]):
    """Link by link. Where ranks are lost (a hung collective), new ones go on with the next link, twice at most."""
    pending, port = list(links), 29512
    for _ in range(3):
        with ranks:
            try:
                ranks.ask("connect", port=port)
                ready = build_all(recorder, ranks)
                while pending:
                    record_link(recorder, ranks, network, pending.pop(0), ready)
                return
            except RanksLost as error:
                recorder.fail("sockets", error)
        if not pending or recorder.left() < 60:
            return
        port += 1
        network.shape("unshaped")
        ranks = start_ranks(network, recorder.rehearse)


def build_all(recorder: Recorder, ranks: Ranks) -> list[tuple[str, str]]:
    ready = []
    for model in MODELS:
        for mode in SHARED:
            with recorder.part(f"sockets: build {model} {mode}", 15) as there_is_time:
                if there_is_time:
                    # Past DDP's first ten steps, where it costs little: the Llama's host is ahead of its device anyway.
                    ranks.ask("build", model=model, mode=mode, warmup=12 if (model, mode) == ("gpt2", "ddp") else 2)
                    ready.append((model, mode))
    return ready


def record_link(recorder: Recorder, ranks: Ranks, network: ShapedNetwork, link: str, ready: list[tuple[str, str]]):
    network.shape(link)
    fast = bits_per_second(link) >= 8e9
    with recorder.part(f"{link}: collectives", 15) as there_is_time:
        if there_is_time:
            record_collectives(recorder, ranks, network, link, WHOLE_SWEEP if fast else SHORT_SWEEP)
            if fast and not recorder.rehearse:
                recorder.add("beside", link=link, ranks=ranks.ask("beside", size_bytes=64 * MIB, calls=4))
    for model, mode in ready:
        expected = step_seconds(model, mode, link)
        warmup = 1 if expected < 1 else 0
        steps = 2 if expected > 4 else 3 if expected > 2 else max(4, min(10, int(4 / expected)))
        with recorder.part(f"{link}: {model} {mode}", (steps + warmup) * expected + 5) as there_is_time:
            if there_is_time:
                record_steps(recorder, ranks, network, link, model, mode, warmup, steps, synchronized=0)
                if expected < 4:
                    recorder.add("spans", link=link, model=model, mode=mode,
                                 ranks=ranks.ask("spans", model=model, mode=mode))


# -- either --------------------------------------------------------------------------------------------------------------


def record_steps(recorder: Recorder, ranks: Ranks, network: ShapedNetwork | None, link: str, model: str, mode: str,
                 warmup: int, steps: int, synchronized: int, few: bool = False, early: bool = False):
    """`early`: among the first ten of DDP, before each of which its host waits for the last one's all-reduces, to log how
    long they took."""
    with counted(network) as devices:
        answers = ranks.ask("steps", model=model, mode=mode, warmup=warmup, steps=steps, synchronized=synchronized,
                            few=few)
    recorder.add("steps", link=link, model=model, mode=mode, few=few, early=early, processes=len(answers), ranks=answers,
                 warmup=warmup, devices=devices)
    medians = " and ".join(f"{middle(answer['seconds']):.4f}" for answer in answers)
    recorder.say(f"{link} {model} {mode}{', few tokens' if few else ''}: medians {medians} s of {steps}")


def record_collectives(recorder: Recorder, ranks: Ranks, network: ShapedNetwork | None, link: str, sweep):
    rate = UNSHAPED.get(link) or bits_per_second(link)
    rows = []
    for index, (op, size_bytes) in enumerate(sweep):
        size_bytes //= 256 if recorder.rehearse else 1
        units = 2 if op == "all_reduce" else 1  # all_gather: one rank's input; reduce_scatter: its output
        wire = 8 * size_bytes * units / 2 if op == "all_reduce" else 8 * size_bytes
        least, most = (5, 20) if link in UNSHAPED else (3, 10)
        repeats = max(least, min(most, int(0.4 * rate / wire)))
        with counted(network) as devices:
            answers = ranks.ask("collective", op=op, size_bytes=size_bytes, warmup=3 if index == 0 else 1,
                                repeats=repeats)
        rows.append({"op": op, "bytes": size_bytes, "ranks": answers, "devices": devices})
    recorder.add("collectives", link=link, rows=rows)
    recorder.say(f"{link} collectives " + ", ".join(
        f"{row['op']} {row['bytes'] / MIB:g} MiB {1e3 * middle(row['ranks'][0]['blocking_seconds']):.2f} / "
        f"{1e3 * row['ranks'][0]['queued_seconds']:.2f} ms" for row in rows if row["bytes"] >= 16 * MIB))


@contextmanager
def counted(network: ShapedNetwork | None) -> Iterator[list[dict]]:
    """What each link and its token bucket sent and dropped meanwhile: filled in at the end."""
    rows: list[dict] = []
    before = network.counters() if network else []
    yield rows
    if network:
        rows += counter_difference(before, network.counters())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, type=pathlib.Path, help="a folder: fsdp.json and traces.tar")
    parser.add_argument("--links", default="unshaped,10gbit,25gbit,5gbit", help="over sockets, in order")
    parser.add_argument("--no-nvlink", action="store_true", help="sockets alone")
    parser.add_argument("--congestion", default="cubic",
                        help="TCP's congestion control in the namespaces: cubic, bbr; empty: as the machine has it")
    parser.add_argument("--mtu", type=int, default=9000, help="bytes, of every virtual link")
    parser.add_argument("--budget-seconds", type=float, default=1e9, help="begin no part that may end later")
    parser.add_argument("--rehearse", action="store_true")
    options = parser.parse_args()
    links = options.links.split(",") if options.links else []
    for link in links:
        bits_per_second(link)

    recorder = Recorder(options.output, options.budget_seconds, options.rehearse)
    recorder.result["conditions"] = {"mtu_bytes": options.mtu, "burst": BURST, "latency": LATENCY, "bucket_cap_mb": 25,
                                     "gradient_as_bucket_view": True, "fresh_processes": True}
    recorder.save()
    try:
        with ExitStack() as stack:
            apart = pairs = None
            if links:
                try:
                    network = stack.enter_context(ShapedNetwork(2, options.mtu))
                    set_congestion(recorder, network, options.congestion)
                    apart = stack.enter_context(start_ranks(network, options.rehearse))
                except FAILURES as error:
                    recorder.fail("network", error)
            if not options.no_nvlink:
                names = ["collectives", *(f"{model} {mode}" for model in MODELS for mode in ("local", *SHARED))]
                pairs = stack.enter_context(Pairs(names, recorder))
            # All have imported PyTorch before anything is measured.
            recorder.result["described"] = ({"nvlink": pairs.describe()} if pairs else {}) | \
                                           ({"sockets": apart.ask("describe")} if apart else {})
            recorder.say("ranks up")
            if pairs:
                try:
                    record_nvlink(recorder, pairs, "nvlink")
                except FAILURES as error:
                    recorder.fail("nvlink", error)
            if apart:
                record_sockets(recorder, network, apart, links)
    except FAILURES as error:
        recorder.fail("recording", error)
    finally:
        recorder.save()
        recorder.say(f"{len(recorder.result['failures'])} failures, {len(recorder.result['left_out'])} left out")


def set_congestion(recorder: Recorder, network: ShapedNetwork, name: str):
    """Where the kernel has no such congestion control its own stays, and the recording says so; which there was, each
    rank's description says (`tcp`)."""
    if name:
        try:
            network.set_congestion_control(name)
        except FAILURES as error:
            recorder.fail(f"congestion control {name}", error)
            name = ""
    recorder.result["conditions"]["congestion_control"] = name or "as the machine has it"


if __name__ == "__main__":
    main()
