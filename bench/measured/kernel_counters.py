# SPDX-License-Identifier: Apache-2.0
"""What the Linux kernel counts of a process and of its network namespace. Reads /proc and asks the interface."""

import fcntl
import os
import pathlib
import socket
import struct
from array import array
from collections import Counter


def offloads(interface: str) -> dict[str, bool]:
    """Segmentation and receive offload of a network interface (SIOCETHTOOL with ETHTOOL_GTSO, GGSO, GGRO)."""
    answers = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for name, request in (("tso", 0x1E), ("gso", 0x23), ("gro", 0x2B)):
            value = array("B", struct.pack("II", request, 0))
            fcntl.ioctl(probe, 0x8946, struct.pack("16sP", interface.encode(), value.buffer_info()[0]))
            answers[name] = struct.unpack("II", value)[1] != 0
    return answers


def tcp_settings() -> dict[str, list[str]]:
    names = ("tcp_rmem", "tcp_wmem", "tcp_congestion_control", "tcp_available_congestion_control")
    files = {name: pathlib.Path(f"/proc/sys/net/ipv4/{name}") for name in names}
    return {name: file.read_text().split() for name, file in files.items() if file.exists()}


def tcp_counters() -> Counter:
    """All counters of TCP of this network namespace, named as nstat names them (`TcpRetransSegs`,
    `TcpExtTCPTimeouts`)."""
    counters = Counter()
    for file in ("/proc/self/net/snmp", "/proc/self/net/netstat"):
        lines = pathlib.Path(file).read_text().splitlines()
        for names, values in zip(lines[::2], lines[1::2]):
            group, keys = names.split(":")
            if group in ("Tcp", "TcpExt"):
                counters.update({group + key: int(value)
                                 for key, value in zip(keys.split(), values.split(":")[1].split())})
    return counters


def thread_seconds() -> Counter:
    """Seconds of CPU (user and system) of this process so far, by the names of its threads, in ticks of 10 ms. Threads
    that have ended are missing."""
    tick, seconds = os.sysconf("SC_CLK_TCK"), Counter()
    for task in pathlib.Path("/proc/self/task").iterdir():
        try:
            text = (task / "stat").read_text()
        except OSError:
            continue
        name = text[text.index("(") + 1:text.rindex(")")]
        fields = text[text.rindex(")") + 2:].split()
        seconds[name] += (int(fields[11]) + int(fields[12])) / tick
    return seconds


class Watched:
    """What is counted while a `with` block runs: TCP of the namespace, and CPU by thread."""

    def __enter__(self):
        self._before = tcp_counters(), thread_seconds()
        return self

    def __exit__(self, *_):
        tcp, threads = self._before
        self.counted = {"tcp": _changes(tcp, tcp_counters()), "cpu_seconds": _changes(threads, thread_seconds())}


def _changes(before: Counter, after: Counter) -> dict[str, float]:
    return {name: round(value - before[name], 3) for name, value in sorted(after.items()) if value != before[name]}
