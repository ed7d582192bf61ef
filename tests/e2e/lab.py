"""A laboratory of networks: hosts, switches, routers and cables, all inside this machine's kernel.

Each host is a network namespace of its own; a segment is a bridge in one more namespace, the *hub*, where
all cables end. A namespace lives as long as its holder, a `cat` that reads a pipe of this process: when the
test run ends, however it ends, the holders end, and the kernel removes what they held. There are no names to
sweep.

Works as root, or else inside a user namespace where those are allowed. Needs `ip` and util-linux, no
firewall: address translation is a process of the lab's own (tests/e2e/lab_nat.py). What is said on a cable
is recorded by tests/e2e/lab_capture.py.
"""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn

import pytest

from tests.e2e import lab_capture, lab_nat
from tests.e2e.lab_capture import Frame
from tests.e2e.terminal import Terminal

TOOLS = ("ip", "unshare", "nsenter", "setpriv")
STEP_S = 15.0
"""How long one step of building may take on a busy machine."""

# The holder of a namespace. A sysfs of its own shows the namespace's interfaces; where the machine does not
# allow that, /sys shows those of the machine, which only programs that read it notice.
_HOLD = "mount -t sysfs none /sys 2>/dev/null; ip link set lo up && echo up && exec cat"


class NotAllowed(Exception):
    """This user may not make a namespace in this way; the text is what the system said."""


def skip(reason: str) -> NoReturn:
    """End the test: what it needs is not to be had on this machine."""
    pytest.skip(f"no network laboratory here: {reason}")


def until(what: str, condition: Callable[[], Any], *, seconds: float = 20, every: float = 0.05) -> Any:
    """Wait until `condition()` is true, and return it; AssertionError when it is not within `seconds`."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds} s for {what}: last seen {value!r}")
        time.sleep(every)


def line_of(stream: IO[bytes], what: str, *, seconds: float = STEP_S) -> str:
    """The next line of a program's unbuffered output; AssertionError when none comes, `what` says of what."""
    end = time.monotonic() + seconds
    line = bytearray()
    while not line.endswith(b"\n"):
        ready, _, _ = select.select([stream], [], [], max(0.0, end - time.monotonic()))
        byte = os.read(stream.fileno(), 1) if ready else b""
        if not byte:
            raise AssertionError(
                f"no line from {what}: {'it ended' if ready else f'{seconds} s have passed'}"
            )
        line += byte
    return line.decode().rstrip("\n")


class Segment:
    """A switch: whoever is plugged in hears broadcast and multicast of all the others."""

    def __init__(self, bridge: str) -> None:
        self.bridge = bridge


class Cable:
    """What joins one interface of a host with a segment. Cut, the interface stays, without carrier."""

    def __init__(self, lab: Lab, hub_side: str, interface: str) -> None:
        self._lab = lab
        self.hub_side = hub_side
        self.interface = interface
        """Its name in the host: eth0, eth1, …"""

    def cut(self) -> None:
        self._lab.hub.ip(f"link set {self.hub_side} down")

    def heal(self) -> None:
        self._lab.hub.ip(f"link set {self.hub_side} up")


class Host:
    """A machine of the laboratory: a network namespace and the programs that run in it."""

    def __init__(self, lab: Lab, name: str, unshare: Sequence[str]) -> None:
        self._lab = lab
        self.name = name
        self.cables: list[Cable] = []
        self.addresses: list[str] = []
        """Those that were given to its cards, without their prefix lengths."""
        self._holder = subprocess.Popen(
            [*unshare, "setpriv", "--pdeathsig", "KILL", "sh", "-c", _HOLD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )
        assert self._holder.stdout is not None
        try:
            line_of(self._holder.stdout, f"the namespace of {name}")
        except AssertionError:
            said = self._end_holder()
            raise NotAllowed(said or "no reason given") from None

    @property
    def pid(self) -> int:
        """The process that keeps the namespace."""
        return self._holder.pid

    def inside(self, argv: Sequence[str], *, cwd: str | os.PathLike[str] = "/") -> list[str]:
        """The command that runs `argv` in this host, with `cwd` as its folder.

        The program has the process id of the command. It is killed when the *thread* that started it ends:
        start programs from the test's own thread.
        """
        return [
            *("nsenter", *self._lab.user, "-t", str(self.pid), "-n", "-m", f"--wd={os.fspath(cwd)}"),
            *("setpriv", "--pdeathsig", "KILL", *argv),
        ]

    def run(self, *argv: str, **more: Any) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, bounded; its output is in the answer."""
        cwd = more.pop("cwd", "/")
        more = {"timeout": STEP_S, "stdin": None if "input" in more else subprocess.DEVNULL} | more
        return subprocess.run(self.inside(argv, cwd=cwd), capture_output=True, text=True, **more)

    def start(self, *argv: str, **more: Any) -> subprocess.Popen[bytes]:
        """Start a program; it is ended with the lab. Its output comes unbuffered, for `line_of`."""
        cwd = more.pop("cwd", "/")
        defaults: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "bufsize": 0}
        process: subprocess.Popen[bytes] = subprocess.Popen(self.inside(argv, cwd=cwd), **(defaults | more))
        self._lab.programs.append(process)
        return process

    def python(self, source: str, *argv: str, **more: Any) -> subprocess.Popen[bytes]:
        """Start a Python program given as text."""
        return self.start(sys.executable, "-P", "-c", source, *argv, **more)

    def terminal(self, argv: Sequence[str], env: Mapping[str, str], **more: Any) -> Terminal:
        """Open a program on a terminal of its own; it is ended with the lab."""
        terminal = Terminal(self.inside(argv, cwd=more.pop("cwd", "/")), env, **more)
        self._lab.terminals.append(terminal)
        return terminal

    def ip(self, *commands: str) -> None:
        """Run commands of `ip` (without that word), all or an error."""
        done = self.run("ip", "-batch", "-", input="\n".join(commands) + "\n")
        assert done.returncode == 0, f"ip failed in {self.name}: {done.stderr}"

    def kernel(self, **settings: str) -> None:
        """Set values under /proc/sys/net; `__` stands for the slash. Skips where a container forbids it."""
        lines = [f"echo {value} > /proc/sys/net/{key.replace('__', '/')}" for key, value in settings.items()]
        done = self.run("sh", "-ec", "\n".join(lines))
        if done.returncode:
            skip(f"the kernel's network settings cannot be changed ({done.stderr.strip()})")

    def plug(self, segment: Segment, *addresses: str, gateway: str | None = None) -> Cable:
        """Put one more network card into this host and join it with `segment`.

        `addresses` have a prefix length (`10.0.0.2/24`, `fd00::2/64`). `gateway` becomes the default route.
        A link-local IPv6 address is there at once, as are all the others: nobody waits for duplicates.
        """
        number = self._lab.next_number()
        cable = Cable(self._lab, f"port{number}", f"eth{len(self.cables)}")
        card = cable.interface
        self._lab.hub.ip(
            f"link add {cable.hub_side} type veth peer name {card} netns {self.pid}",
            f"link set {cable.hub_side} addrgenmode none",
            f"link set {cable.hub_side} master {segment.bridge} up",
        )
        six = [f"fe80::{number:x}/64", *(address for address in addresses if ":" in address)]
        four = [address for address in addresses if ":" not in address]
        self.ip(
            *([f"link set {card} addrgenmode none"] if self._lab.has_ipv6 else []),
            f"link set {card} up",
            *(f"addr add {address} brd + dev {card}" for address in four),
            *(f"addr add {address} nodad dev {card}" for address in six if self._lab.has_ipv6),
            *([f"route add default via {gateway} dev {card}"] if gateway else []),
        )
        self.cables.append(cable)
        self.addresses += [address.partition("/")[0] for address in addresses]
        return cable

    def capture(self, cable: Cable | None = None) -> Capture:
        """Record what passes one cable of this host, its first if not said, from now on."""
        return Capture(self._lab, cable or self.cables[0])

    def _end_holder(self) -> str:
        """End the holder; what it said on stderr."""
        self._holder.kill()
        said = self._holder.communicate(timeout=STEP_S)[1]
        return str(said, "utf-8", "replace").strip()

    def close(self) -> None:
        self._end_holder()


class Capture:
    """A recording of the frames on one cable, both directions."""

    def __init__(self, lab: Lab, cable: Cable) -> None:
        self._path = lab.folder / f"{cable.hub_side}-{lab.next_number()}.frames"
        self._process = lab.hub.start(
            sys.executable, "-I", lab_capture.__file__, cable.hub_side, str(self._path)
        )
        assert self._process.stdout is not None
        line_of(self._process.stdout, "the capture")

    def stop(self) -> list[Frame]:
        """End the recording; all frames, as they came."""
        self._process.communicate(timeout=STEP_S)  # closes its stdin, which ends it
        assert self._process.returncode == 0
        return lab_capture.frames_of(self._path.read_bytes())


class Lab:
    """All hosts and segments of one test; `close` ends them. `folder` takes the recordings.

    Skips the test where there can be none.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.programs: list[subprocess.Popen[bytes]] = []
        self.terminals: list[Terminal] = []
        self._hosts: list[Host] = []
        self._numbers = 0
        if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
            skip(f"not installed: {', '.join(missing)}")
        self.has_ipv6 = Path("/proc/net/if_inet6").exists()
        self.user: list[str] = []
        """How a command enters the lab's user namespace; nothing for root where root needs none."""
        self.hub = self._add_hub()
        probe = self.hub.run(
            "ip",
            "-batch",
            "-",
            input="link add probe0 type bridge\nlink add probe1 type veth peer name probe2\n",
        )
        if probe.returncode:
            self.close()
            skip(f"no bridges and cables in this kernel ({probe.stderr.strip()})")

    def _add_hub(self) -> Host:
        refusal = ""
        if os.geteuid() == 0:
            try:
                return self._add("hub", ["unshare", "-n", "-m"])
            except NotAllowed as error:
                refusal = f"{error}; "
        try:
            hub = self._add("hub", ["unshare", "-U", "-r", "-n", "-m"])
        except NotAllowed as error:
            skip(f"this user may not make network namespaces ({refusal}{error})")
        self.user = ["-U", "--preserve-credentials"]
        return hub

    def _add(self, name: str, unshare: Sequence[str]) -> Host:
        host = Host(self, name, unshare)
        self._hosts.append(host)
        return host

    def next_number(self) -> int:
        self._numbers += 1
        return self._numbers

    def segment(self) -> Segment:
        """A new switch."""
        bridge = f"switch{self.next_number()}"
        # Snooping would wait for a multicast querier; without it the switch gives multicast to everyone.
        self.hub.ip(f"link add {bridge} type bridge mcast_snooping 0", f"link set {bridge} up")
        return Segment(bridge)

    def host(
        self, name: str, segment: Segment | None = None, *addresses: str, gateway: str | None = None
    ) -> Host:
        """A new machine, plugged in if a segment is given."""
        enter = ["nsenter", *self.user, "-t", str(self.hub.pid)] if self.user else []
        host = self._add(name, [*enter, "unshare", "-n", "-m"])
        if segment is not None:
            host.plug(segment, *addresses, gateway=gateway)
        return host

    def router(self, name: str, *sides: tuple[Segment, str]) -> Host:
        """A machine that forwards packets between its sides, unchanged. Multicast stays on its segment."""
        host = self.host(name)
        host.kernel(ipv4__ip_forward="1")
        if self.has_ipv6:
            host.kernel(ipv6__conf__all__forwarding="1")
        for segment, address in sides:
            host.plug(segment, address)
        return host

    def nat(
        self,
        name: str,
        *,
        inside: tuple[Segment, str],
        outside: tuple[Segment, str],
        public: str,
        gateway: str | None = None,
    ) -> Host:
        """A home router: the machines inside share the address `public`, one port of it per conversation.

        `public` is free in the outside segment, in which the router has another address of its own. Who did
        not get a packet from inside gets none in. Skips without TUN devices.
        """
        if not Path("/dev/net/tun").exists():
            skip("without /dev/net/tun no process can translate addresses")
        host = self.host(name)
        host.kernel(ipv4__conf__all__rp_filter="0", ipv4__conf__default__rp_filter="0", ipv4__ip_forward="1")
        host.plug(*inside)
        host.plug(*outside, gateway=gateway)
        process = host.start(sys.executable, "-I", lab_nat.__file__, "nat0", public, stderr=subprocess.PIPE)
        assert process.stdout is not None
        try:
            line_of(process.stdout, "the address translation")
        except AssertionError as error:
            skip(f"this user may not make a TUN device ({error})")
        # What comes from inside goes through the process, and so does what comes for the public address. No
        # card has that address; the router only says "here" when asked who has it.
        host.kernel(ipv4__neigh__eth1__proxy_delay="0", ipv4__conf__eth1__proxy_arp="1")
        host.ip(
            "link set nat0 up",
            "rule add iif eth0 lookup 100",
            "route add default dev nat0 table 100",
            "rule add iif eth1 lookup 101",
            f"route add {public}/32 dev nat0 table 101",
            "route add blackhole default table 101",
        )
        return host

    def close(self) -> None:
        """End every program, then every namespace."""
        for terminal in self.terminals:
            terminal.close()
        for program in self.programs:
            program.kill()
        for program in self.programs:
            program.communicate(timeout=STEP_S)
        for host in reversed(self._hosts):
            host.close()
