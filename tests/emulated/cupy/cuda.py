"""The part of cupy.cuda that the package asks for; as many devices as TINYGRAD_OPT_EMULATED says, one by default."""

import os
import types

LOG = []                                            # what streams and NCCL were asked for, in order
nccl = types.SimpleNamespace(available=os.environ.get("TINYGRAD_OPT_EMULATED_NCCL") != "none")
COUNT = int(os.environ.get("TINYGRAD_OPT_EMULATED", "1"))
runtime = types.SimpleNamespace(
    getDeviceCount=lambda: COUNT, getDeviceProperties=lambda device: {"name": b"emulated"},
    runtimeGetVersion=lambda: 0, deviceGetPCIBusId=lambda device: f"0000:{device:02x}:00.0")


class Device:
    current = 0

    def __init__(self, id=None):
        self.id = Device.current if id is None else id

    def use(self):
        assert 0 <= self.id < COUNT
        Device.current = self.id


class Event:
    def __init__(self, name):
        self.name = name

    def synchronize(self):
        LOG.append(f"host waits for {self.name}")


class Stream:
    def __init__(self, null=False, non_blocking=False):
        self.name = "side" if non_blocking else "current"

    def record(self):
        return Event(self.name)

    def wait_event(self, event):
        LOG.append(f"{self.name} waits for {event.name}")


def get_current_stream():
    return Stream()
