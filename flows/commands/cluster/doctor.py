"""`actwright cluster doctor`: what a cluster lacks for the platform and for a recipe's training."""

from __future__ import annotations

import typer

from flows.commands.cluster.job import TrainOptions, planned_job
from flows.terminal.output import print_line, print_result


def doctor(options: TrainOptions) -> None:
    """Say what a cluster lacks for the platform and for a recipe's training, each with what to do; exit code 1 where something is lacking.

    The training's image must be named by its digest (or --allow-tag). "may lack" is what this account may not see, what a cluster may add
    by itself (machines), and other images that are named by a tag. Nothing is changed, and of secrets only the names of keys are read.

    Example: actwright cluster doctor
    Example: actwright cluster doctor mine.json --nodes 2 --procs 8 --gpus 8 --rdma 8 --queue research --priority production
    """
    from flows.platform.wiring import open_cluster
    from model_core.spec.errors import SpecError

    try:
        spec = planned_job(options)
    except SpecError as error:
        raise typer.BadParameter(str(error)) from error
    kind, lacks = open_cluster(options.kubeconfig).lacks(spec)
    print_line(f"a training of {options.recipe} would be submitted as a {kind} in namespace {spec.namespace}")
    for lack in lacks:
        print_line(f"it {lack.line()}")
    certain = [lack.what for lack in lacks if lack.certain]
    if not certain:
        print_line("nothing is certainly lacking")
    print_result(kind=kind, lacks=certain, may_lack=[lack.what for lack in lacks if not lack.certain])
    if certain:
        raise typer.Exit(1)
