"""The torchrun command line that starts one node's processes of a training, on a laptop and in a pod alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from model_core.spec.errors import require

WORKER_MODULE = "components.training.worker"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendezvous:
    """How the nodes of a training find each other.

    kind "standalone": one machine. "static": every node is given its rank (Indexed Job: ``node_rank="$(JOB_COMPLETION_INDEX)"``)
    and `address` is node 0. "c10d": nodes find their rank at `address`:`port`; give `is_host` and `local_addr`
    where the address does not resolve to the host itself (network namespaces). run_id: of the c10d rendezvous.
    """

    kind: Literal["standalone", "static", "c10d"] = "standalone"
    address: str = ""
    port: int = 29_400
    node_rank: int | str = 0
    is_host: bool | None = None
    local_addr: str = ""
    run_id: str = "actwright"

    def options(self, nodes: int) -> list[str]:
        """The options of torchrun for `nodes` machines; raises `SpecError` where they do not fit."""
        require(self.kind != "standalone" or nodes == 1, f"standalone is for one node, not {nodes}; use 'static' or 'c10d'")
        require(self.kind == "standalone" or bool(self.address), f"rendezvous {self.kind!r} needs the address of node 0")
        local = [f"--local-addr={self.local_addr}"] if self.local_addr else []
        if self.kind == "standalone":
            return ["--standalone", *local]
        if self.kind == "static":
            rank = [f"--node-rank={self.node_rank}", f"--master-addr={self.address}", f"--master-port={self.port}"]
            return [f"--nnodes={nodes}", *rank, *local]
        found = [f"--rdzv-endpoint={self.address}:{self.port}", f"--rdzv-id={self.run_id}"]
        host = [] if self.is_host is None else [f"--rdzv-conf=is_host={str(self.is_host).lower()}"]
        return [f"--nnodes={nodes}", "--rdzv-backend=c10d", *found, *host, *local]


ONE_MACHINE = Rendezvous()
# what torchrun would put into the environment of the only process of a training; port 0: any free one, which no other process has to find
ONLY_RANK = {
    **dict.fromkeys(("RANK", "LOCAL_RANK", "GROUP_RANK"), "0"),
    **dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE"), "1"),
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "0",
}


def only_rank_command(job: str, *, python: str = "python") -> list[str]:
    """The command line of a training of one process, for an environment with `ONLY_RANK`: without torchrun, which takes seconds to load."""
    return [python, "-u", "-m", WORKER_MODULE, job]


def torchrun_command(
    job: str, *, nodes: int = 1, procs: int = 1, rendezvous: Rendezvous = ONE_MACHINE, python: str = "python"
) -> list[str]:
    """The command line that starts this node's processes of a training.

    job: path of the job document, as the processes see it. nodes, procs: machines, and processes on each. Never restarts in
    place: a new start resumes from the last complete checkpoint.
    """
    require(nodes >= 1 and procs >= 1, "nodes and procs must be at least 1", got=(nodes, procs))
    launch = [python, "-m", "torch.distributed.run", f"--nproc-per-node={procs}", "--max-restarts=0"]
    return [*launch, *rendezvous.options(nodes), "-m", WORKER_MODULE, job]
