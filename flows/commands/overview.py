"""What every command does, in a sentence: the list that `actwright --help` shows without importing any of them.

Each is the first sentence of the command's own help text; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Mapping

import typer

# in the order of the list: commands, then groups of commands
OVERVIEW: Mapping[str, str] = {
    "run": "Run the whole loop, all ten stages; completed stages are cached and not recomputed.",
    "recipe": "Show a recipe with every field resolved, or write it to a file.",
    "recipes": "List the recipes, one per line.",
    "train": "Train on a recipe's data set (made first if it is missing); no evaluation.",
    "evaluate": "Evaluate a recipe's policy on fresh seeds, or on held-out episodes of its sources (trained first if it is missing).",
    "seeds": "Train and evaluate with several training seeds on the same data; prints a table with confidence intervals.",
    "report": "Print where the newest run's report is and what the gate decided.",
    "show": "Show the record of a finished step.",
    "lineage": (
        'Show what something was made of, and what was made with it ("this annotator was wrong: which models, releases and robots?").'
    ),
    "up": "Open the console, Prefect's page, MLflow's page and the policy service of a recipe's champion on loopback, until Ctrl-C.",
    "console": "Serve the web console until Ctrl-C; on loopback unless --host says otherwise.",
    "schedule": "Register the retraining deployment in Prefect's work pool `actwright`, and work for it until Ctrl-C.",
    "approve": "Approve a proposed retraining and run it here, or let the schedule run it.",
    "ingest": "Take recordings in: check each, quarantine bad ones with the reason, and make a raw data set of those that did not fail.",
    "export": "Write the bundle of a recipe's champion (weights, contract, probes) into a folder, atomically.",
    "certify": (
        "Prove that speculative decoding changes nothing: every recorded decision plain and speculative, alone and "
        "with 16 sessions together."
    ),
    "serve": "Serve one packed policy to workcells until Ctrl-C; on loopback unless --host says otherwise.",
    "probe": (
        "Shake hands with a policy service, show its contract, and ask for one decision on a synthetic image, with timings of every stage."
    ),
    "fault-server": "Serve a policy that fails on purpose, seeded and scripted, to test any client: late, silent, wrong or lost answers.",
    "fault-proxy": (
        "Relay between a client and a service over a link with seeded faults: latency, jitter, loss, half-open, cuts, corruption."
    ),
    "runs": "Runs as MLflow recorded them: list the newest, compare some.",
    "data": "Data sets: look at them, edit them, export them; and the data stages one by one (what dvc.yaml runs).",
    "embodiment": "The file that says what a robot's numbers and images mean.",
    "episodes": "Episodes of all sets, recordings and audits: find them, correct what is stated of them, sort out failures.",
    "suite": "Benchmark suites: which there are, what one holds, a policy on one, and a page that lets others repeat it.",
    "study": "Comparisons of policies: what to expect of one, run it, ratings of many, and a proof that no trial was changed.",
    "champion": "Who is champion, who was, and a person's decisions about it: promote, roll back, withdraw.",
    "model": "Checkpoints: inspect, adopt for serving, compare with the published code, convert, round to int8.",
    "bench": "Measure decoding: record what a policy sees, then time its decisions. `actwright certify` proves that no token differs.",
    "workcell": "Workcells: robots that act on a served policy.",
    "cluster": "Training, labelling and evaluation on a cluster: plan it, show the manifest, submit the job, read its logs, delete it.",
    "fleet": "A fleet of robots: releases, their keys and repository, the agent of a cell, the controller, rollouts, and the kill switch.",
    "audit": "Audits of workcells: list, verify, replay a decision.",
}


def add_overview(app: typer.Typer) -> None:
    """Put the names of all commands on the command line, for its list; none of them can be run."""
    for word, sentence in OVERVIEW.items():
        app.command(word, help=sentence)(_named_only)


def _named_only() -> None: ...
