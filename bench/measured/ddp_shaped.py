#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How long PyTorch DDP training of GPT-2 takes over shaped links: how ddp-gpt2-h200-heldout.json was made.

All ranks share one GPU through MPS, each with its share of the multiprocessors, each in a network namespace of its
own, so that NCCL talks TCP over virtual links whose rate tc's token bucket sets. Run as root on a Linux machine
with one NVIDIA GPU, PyTorch, transformers and iproute2:

    python3 ddp_shaped.py --points 2:5gbit,2:2gbit,4:10gbit --output result.json

`--rehearse` runs the same commands on a tiny model on the CPU under gloo, to check the plumbing.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
import time

from rank_processes import Ranks
from shaped_network import BURST, INTERFACE, LATENCY, ShapedNetwork, counter_difference

BUCKET_CAP_MB = 25
RANK_PROGRAM = str(pathlib.Path(__file__).with_name("ddp_rank.py"))
KIB, MIB = 1 << 10, 1 << 20

# (bytes, warm-up calls, timed calls). Enough calls that the token buckets' burst is spent before the timed ones,
# except at 4 KiB, where it never is.
ALL_REDUCES = [(4 * KIB, 20, 200), (64 * KIB, 50, 200), (256 * KIB, 10, 50), (1 * MIB, 4, 20), (4 * MIB, 2, 10),
               (16 * MIB, 1, 5), (64 * MIB, 1, 4)]


def bits_per_second(rate: str) -> float:
    if rate == "unshaped":
        return float("inf")
    for suffix, factor in (("gbit", 1e9), ("mbit", 1e6)):
        if rate.endswith(suffix):
            return float(rate.removesuffix(suffix)) * factor
    raise ValueError(f"rate {rate!r}: expected unshaped, <number>gbit or <number>mbit")


def start_ranks(network: ShapedNetwork, rehearse: bool, nccl_debug: pathlib.Path | None, pipes: str) -> Ranks:
    """The rank processes of one world size, each in its namespace."""
    ranks = []
    for rank in range(network.ranks):
        environment = os.environ | {
            "NCCL_HOSTID": f"host{rank}",  # ranks on one GPU look like ranks on several machines
            "NCCL_SOCKET_IFNAME": INTERFACE,
            "GLOO_SOCKET_IFNAME": INTERFACE,
            "NCCL_IB_DISABLE": "1",
            "CUDA_MPS_PIPE_DIRECTORY": pipes,
            "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": str(100 // network.ranks),
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
        }
        if nccl_debug:
            environment |= {"NCCL_DEBUG": "INFO", "NCCL_DEBUG_SUBSYS": "INIT,NET,GRAPH,TUNING",
                            "NCCL_DEBUG_FILE": str(nccl_debug / f"nccl-{network.ranks}ranks-{rank}.log")}
        command = [*network.inside(rank), sys.executable, RANK_PROGRAM,
                   "--rank", str(rank), "--ranks", str(network.ranks), "--store", network.address(0)]
        ranks.append((command + ["--rehearse"] * rehearse, environment))
    return Ranks(ranks)


def measure_all_reduces(network: ShapedNetwork, ranks: Ranks) -> dict:
    rows = []
    for size_bytes, warmup, repeats in ALL_REDUCES:
        before = network.counters()
        rows.append(ranks.ask("all_reduce", size_bytes=size_bytes, warmup=warmup, repeats=repeats)[0])
    # The counters of the last, largest size: warm-up and timed calls together.
    difference = counter_difference(before, network.counters())
    return {"all_reduce": rows,
            "link_counters": {"bytes": size_bytes, "calls": warmup + repeats, "devices": difference}}


def measure(network: ShapedNetwork, ranks: Ranks, rate: str, extras: bool) -> dict:
    """One row of the result's `runs`."""
    slow = bits_per_second(rate) < 1.5e9
    row = {"ranks": network.ranks, "link_rate": rate, **measure_all_reduces(network, ranks)}
    local = ranks.ask("local", warmup=3, steps=5)
    row["local_step_seconds"] = local[0]["seconds"]
    row["local_phase_seconds"] = local[0]["phase_seconds"]
    row["local_step_mean_seconds_by_rank"] = [sum(a["seconds"]) / len(a["seconds"]) for a in local]
    ddp = ranks.ask("ddp", warmup=2, steps=2 if slow else 5, bucket_cap_mb=BUCKET_CAP_MB)
    row["ddp_step_seconds"] = ddp[0]["seconds"]
    row["bucket_bytes"] = integers(ddp[0]["logging"]["rebuilt_bucket_sizes"])
    if not slow:
        row["bucket_timeline"] = ranks.ask("bucket_timeline", warmup=2, steps=2, bucket_cap_mb=BUCKET_CAP_MB)[0]
    if extras:
        row["local_sgd"] = ranks.ask("local_sgd", period=4, rounds=2)[0]
        row["partial_local_sgd"] = ranks.ask("partial_local_sgd", period=4, rounds=2)[0]
    return row


def bucket_plans(ranks: Ranks) -> list[dict]:
    """DDP's own account of its buckets before and after it plans them anew, in the order they are reduced, for
    several caps (None: PyTorch's default, whose first bucket has a cap of 1 MiB). `parameters` are indices into
    `parameter_tensors`."""
    plans = []
    for cap in (BUCKET_CAP_MB, None, 1, 5, 100):
        logging = ranks.ask("ddp", warmup=2, steps=1, bucket_cap_mb=cap)[0]["logging"]
        plans.append({"bucket_cap_mb": cap,
                      "initial_bytes": integers(logging["bucket_sizes"]),
                      "rebuilt_bytes": integers(logging["rebuilt_bucket_sizes"]),
                      "parameters": [integers(bucket, " ") for bucket
                                     in logging["rebuilt_per_bucket_param_indices"].split(",")]})
    return plans


def integers(text: str, separator: str = ",") -> list[int]:
    return [int(part) for part in text.strip().split(separator)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", required=True, help="comma-separated ranks:rate, in order; 'ranks:rate:allreduce' "
                        "times the all-reduces only, 'ranks:rate:extras' adds Local SGD and partial Local SGD")
    parser.add_argument("--output", required=True, type=pathlib.Path)
    parser.add_argument("--mtu", type=int, default=9000, help="bytes, of every virtual link")
    parser.add_argument("--plans", action="store_true", help="record DDP's bucket plans at the first world size")
    parser.add_argument("--budget-seconds", type=float, default=1e9, help="start no point after this long")
    parser.add_argument("--nccl-debug", type=pathlib.Path, help="a folder for NCCL's own logs (slows small calls)")
    parser.add_argument("--rehearse", action="store_true")
    options = parser.parse_args()

    started = time.monotonic()
    groups: dict[int, list[tuple[str, str]]] = {}
    for point in options.points.split(","):
        count, rate, mode = (point.split(":") + ["full"])[:3]
        bits_per_second(rate)
        groups.setdefault(int(count), []).append((rate, mode))

    result = {
        "date": datetime.date.today().isoformat()[:7],
        "conditions": {"mtu_bytes": options.mtu, "burst": BURST, "latency": LATENCY,
                       "bucket_cap_mb": BUCKET_CAP_MB, "kernel": platform.release()},
        "ranks_described": [], "bucket_plans": [], "runs": [], "failures": [],
    }

    def save():
        options.output.write_text(json.dumps(result, indent=1) + "\n")

    def say(text: str):
        print(f"[{time.monotonic() - started:6.1f} s] {text}", file=sys.stderr, flush=True)

    pipes = tempfile.mkdtemp(prefix="mps")
    mps = os.environ | {"CUDA_MPS_PIPE_DIRECTORY": pipes, "CUDA_MPS_LOG_DIRECTORY": pipes}
    if not options.rehearse:
        subprocess.run(["nvidia-cuda-mps-control", "-d"], env=mps, check=True)
    port = 29500
    try:
        for count, points in groups.items():
            if time.monotonic() - started > options.budget_seconds:
                break
            try:
                with ShapedNetwork(count, options.mtu) as network, \
                        start_ranks(network, options.rehearse, options.nccl_debug, pipes) as ranks:
                    described = ranks.ask("describe")[0]
                    say(f"{count} ranks up, {described['parameters']} parameters")
                    result["ranks_described"].append({"ranks": count, **described})
                    for rate, mode in points:
                        if time.monotonic() - started > options.budget_seconds:
                            result["failures"].append(f"{count}:{rate}: no time left")
                            continue
                        network.shape(rate)
                        port += 1
                        ranks.ask("connect", port=port)
                        if mode == "allreduce":
                            row = {"ranks": count, "link_rate": rate, **measure_all_reduces(network, ranks)}
                        else:
                            row = measure(network, ranks, rate, mode == "extras")
                        result["runs"].append(row)
                        save()
                        say(f"{count}:{rate}:{mode} " + json.dumps({
                            "all_reduce": [[r["bytes"], round(r["seconds"], 6)] for r in row["all_reduce"]],
                            "local": row.get("local_step_seconds"), "ddp": row.get("ddp_step_seconds"),
                            "local_sgd": row.get("local_sgd"), "partial": row.get("partial_local_sgd")}))
                        if options.plans and not result["bucket_plans"]:
                            network.shape("unshaped")
                            result["bucket_plans"] = bucket_plans(ranks)
                    ranks.ask("close")
            except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
                say(f"FAILED at {count} ranks: {error} {getattr(error, 'stderr', '')}")
                result["failures"].append(f"{count} ranks: {error}")
            save()
    finally:
        save()
        if not options.rehearse:
            subprocess.run(["nvidia-cuda-mps-control"], input="quit\n", env=mps, text=True, timeout=30)


if __name__ == "__main__":
    main()
