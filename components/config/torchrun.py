"""The torchrun command line that starts one node's processes of a training, on a laptop and in a pod alike."""

from __future__ import annotations

from typing import Literal

from model_core.spec.errors import require

WORKER_MODULE = "components.training.worker"


def torchrun_command(
    job: str,
    *,
    nodes: int = 1,
    procs: int = 1,
    rendezvous: Literal["standalone", "static", "c10d"] = "standalone",
    address: str = "",
    port: int = 29_400,
    node_rank: int | str = 0,
    is_host: bool | None = None,
    local_addr: str = "",
    rdzv_id: str = "actwright",
    python: str = "python",
) -> list[str]:
    """The command line that starts this node's processes of a training.

    job: path of the job document, as the processes see it. nodes, procs: machines, and processes on each.
    "standalone": one machine. "static": every node is told its rank (Indexed Job: ``node_rank="$(JOB_COMPLETION_INDEX)"``)
    and `address` is node 0. "c10d": nodes find their rank at `address`:`port`; give `is_host` and `local_addr`
    where the address does not resolve to the host itself (network namespaces). Never restarts in place: a fresh
    start goes on from the last complete checkpoint.
    """
    require(nodes >= 1 and procs >= 1, "nodes and procs must be at least 1", got=(nodes, procs))
    require(rendezvous != "standalone" or nodes == 1, f"standalone is for one node, not {nodes}; use 'static' or 'c10d'")
    require(rendezvous == "standalone" or bool(address), f"rendezvous {rendezvous!r} needs the address of node 0")
    command = [python, "-m", "torch.distributed.run", f"--nproc-per-node={procs}", "--max-restarts=0"]
    if rendezvous == "standalone":
        command += ["--standalone"]
    elif rendezvous == "static":
        command += [f"--nnodes={nodes}", f"--node-rank={node_rank}", f"--master-addr={address}", f"--master-port={port}"]
    else:
        command += [f"--nnodes={nodes}", "--rdzv-backend=c10d", f"--rdzv-endpoint={address}:{port}", f"--rdzv-id={rdzv_id}"]
        if is_host is not None:
            command += [f"--rdzv-conf=is_host={str(is_host).lower()}"]
    if local_addr:
        command += [f"--local-addr={local_addr}"]
    return [*command, "-m", WORKER_MODULE, job]
