"""Data parallelism over devices and processes; the only file that says pmap."""

import contextlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "data"  # the name every collective uses
TIMEOUT = 30  # seconds after which a silent peer is given up


def pmap(chunk: Callable) -> Callable:
  """Runs `chunk(state, batch, constants)` on every device of every process.

  The state goes in and comes out replicated, without a device axis, and is donated; leaves of the
  batch have a leading axis of local devices; constants are replicated. Inside, collectives over
  `AXIS` see all devices of all processes. The outputs must be equal on all devices (pmean'ed):
  pmap returns those of the first one without looking.
  """
  return jax.pmap(chunk, axis_name=AXIS, in_axes=(None, 0, None), out_axes=None, donate_argnums=0)


def replicate(tree: Any) -> Any:
  """Puts a pytree on every local device, once, in the form that `pmap` takes without a copy."""
  mesh = Mesh(np.array(jax.local_devices()), (AXIS,))
  return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def fetch(tree: Any) -> Any:
  """Returns a replicated pytree as NumPy arrays."""

  def local(x):
    return np.asarray(x.addressable_shards[0].data) if isinstance(x, jax.Array) else np.asarray(x)

  return jax.tree.map(local, tree)


def one_device(tree: Any) -> Any:
  """Returns a replicated pytree as arrays on the first local device, without a copy."""
  return jax.tree.map(lambda x: x.addressable_shards[0].data, tree)


def check_batch(batch_size: int) -> None:
  """Raises unless the global batch divides over all devices."""
  devices = jax.device_count()
  if batch_size < 1 or batch_size % devices:
    below = batch_size - batch_size % devices
    near = f"{below} or {below + devices}" if below > 0 else f"{devices}"
    raise ValueError(f"batch_size={batch_size} does not divide over {devices} devices; use {near}")


def local_slices(array: np.ndarray, axis: int) -> np.ndarray:
  """Cuts the global batch `axis` into this process's devices, which become the leading axis."""
  parts = np.split(array, jax.device_count(), axis=axis)
  first = jax.process_index() * jax.local_device_count()
  return np.stack(parts[first : first + jax.local_device_count()])


def initialize(flag: str) -> None:
  """Joins a multi-process job.

  Args:
    flag: "off"; "auto" (JAX finds the cluster: Slurm, TPU, Open MPI, Kubernetes); or
      "host:port,processes,rank".
  """
  if flag == "off":
    return
  options = {}
  if flag != "auto":
    try:
      address, processes, rank = flag.split(",")
      options = {
        "coordinator_address": address,
        "num_processes": int(processes),
        "process_id": int(rank),
      }
    except ValueError:
      raise ValueError(
        f"--distributed={flag!r} is not understood; use off, auto or host:port,processes,rank"
      ) from None
  jax.distributed.initialize(
    **options,
    initialization_timeout=TIMEOUT,
    heartbeat_timeout_seconds=TIMEOUT,
    shutdown_timeout_seconds=TIMEOUT,
  )


@contextlib.contextmanager
def fail_together() -> Iterator[None]:
  """Ends this process at once on an exception, so that its peers fail now and not in minutes.

  An exception in one process otherwise leaves it waiting in the shutdown barrier while the others
  wait in a collective.
  """
  try:
    yield
  except BaseException as error:
    if jax.process_count() == 1:
      raise
    if isinstance(error, SystemExit):
      print(error.code, file=sys.stderr)
    else:
      traceback.print_exc()
    sys.stderr.flush()
    os._exit(1)


def wait_for_all(name: str) -> None:
  """A barrier over the processes of a job; nothing in a single one."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(name)
