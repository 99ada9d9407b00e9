# SPDX-License-Identifier: Apache-2.0
"""A star of network namespaces, one per rank, around one bridge, every link shaped in both directions.

Knows iproute2 and nothing of PyTorch. Needs root, and `ip` and `tc` on PATH.

    rank namespace                      root namespace
    eth0 (tbf: what the rank sends) --- tdveth<r> (tbf: what the rank receives) --- tdbridge
"""

import json
import os
import pathlib
import subprocess

BRIDGE = "tdbridge"
INTERFACE = "eth0"
BURST = "1m"
LATENCY = "200ms"


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


class ShapedNetwork:
    """Namespaces `tdrank0` .. `tdrank<ranks-1>` with addresses 10.77.0.1 upwards. A context manager."""

    def __init__(self, ranks: int, mtu_bytes: int):
        self.ranks = ranks
        self.mtu_bytes = mtu_bytes

    def namespace(self, rank: int) -> str:
        return f"tdrank{rank}"

    def address(self, rank: int) -> str:
        return f"10.77.0.{rank + 1}"

    def inside(self, rank: int) -> list[str]:
        """What a command begins with that runs in a rank's namespace. Where `ip` comes with libraries of its own, the
        command has those of its caller, not `ip`'s."""
        libraries = os.environ.get("LD_LIBRARY_PATH")
        own = ["-u", "LD_LIBRARY_PATH"] if libraries is None else [f"LD_LIBRARY_PATH={libraries}"]
        return ["ip", "netns", "exec", self.namespace(rank), "env", *own]

    def _devices(self):
        """Every shaped device: (rank, direction seen from the rank, arguments that select its namespace, name)."""
        for rank in range(self.ranks):
            yield rank, "send", ("-n", self.namespace(rank)), INTERFACE
            yield rank, "receive", (), f"tdveth{rank}"

    def __enter__(self):
        self._remove()
        mtu = str(self.mtu_bytes)
        _run("ip", "link", "add", BRIDGE, "mtu", mtu, "type", "bridge")
        _run("ip", "link", "set", BRIDGE, "up")
        for rank in range(self.ranks):
            namespace, outer = self.namespace(rank), f"tdveth{rank}"
            _run("ip", "netns", "add", namespace)
            _run("ip", "link", "add", outer, "mtu", mtu, "type", "veth",
                 "peer", "name", INTERFACE, "mtu", mtu, "netns", namespace)
            _run("ip", "link", "set", outer, "master", BRIDGE, "up")
            _run("ip", "-n", namespace, "addr", "add", f"{self.address(rank)}/24", "dev", INTERFACE)
            _run("ip", "-n", namespace, "link", "set", INTERFACE, "up")
            _run("ip", "-n", namespace, "link", "set", "lo", "up")
        return self

    def __exit__(self, *_):
        self._remove()

    def _remove(self):
        for rank in range(16):
            subprocess.run(["ip", "netns", "del", self.namespace(rank)], capture_output=True)
            subprocess.run(["ip", "link", "del", f"tdveth{rank}"], capture_output=True)
        subprocess.run(["ip", "link", "del", BRIDGE], capture_output=True)

    def shape(self, rate: str):
        """Sets every link, both ways, to `rate` as tc writes it ("5gbit"), or removes the shaping ("unshaped")."""
        for _, _, where, device in self._devices():
            subprocess.run(["tc", *where, "qdisc", "del", "dev", device, "root"], capture_output=True)
            if rate != "unshaped":
                _run("tc", *where, "qdisc", "add", "dev", device, "root",
                     "tbf", "rate", rate, "burst", BURST, "latency", LATENCY)

    def set_congestion_control(self, name: str):
        """TCP's in every rank's namespace, of connections that are made from now on. Namespaces may only have what the
        root namespace allows to all, which this adds to."""
        allowed = pathlib.Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control")
        names = allowed.read_text().split()
        if name not in names:
            allowed.write_text(" ".join([*names, name]))
        for rank in range(self.ranks):
            _run(*self.inside(rank), "sh", "-c", f"echo {name} > /proc/sys/net/ipv4/tcp_congestion_control")

    def counters(self) -> list[dict]:
        """What each device has sent: `wire_*` as the token bucket counts it (every segment with its own headers;
        absent while unshaped), `buffer_*` as the device counts it (one large buffer before segmentation is one)."""
        rows = []
        for rank, direction, where, device in self._devices():
            link = json.loads(_run("ip", "-j", "-s", *where, "link", "show", "dev", device))[0]["stats64"]["tx"]
            row = {"rank": rank, "direction": direction,
                   "buffer_bytes": link["bytes"], "buffer_packets": link["packets"]}
            for qdisc in json.loads(_run("tc", "-j", "-s", *where, "qdisc", "show", "dev", device)):
                if qdisc["kind"] == "tbf":
                    row |= {"wire_bytes": qdisc["bytes"], "wire_packets": qdisc["packets"],
                            "drops": qdisc["drops"]}
            rows.append(row)
        return rows


def counter_difference(before: list[dict], after: list[dict]) -> list[dict]:
    """Row by row `after - before` of two answers of `ShapedNetwork.counters` under the same shaping."""
    names = ("rank", "direction")
    return [{key: b[key] if key in names else b[key] - a[key] for key in b} for a, b in zip(before, after)]
