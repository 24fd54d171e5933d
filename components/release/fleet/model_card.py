"""The model card of a release: what a person reads before it runs on a robot."""

from __future__ import annotations

from collections.abc import Mapping

from components.config.judging.verdict import GateVerdict
from model_core.spec.contract import PolicyContract
from model_core.spec.fleet.release import Override, ReleaseFile, part_of


def model_card(
    model_version: str, contract: PolicyContract, verdict: GateVerdict | None, override: Override | None, files: Mapping[str, ReleaseFile]
) -> str:
    """Markdown text. files: those of the bundle."""
    body = contract.embodiment
    lines = [f"# {model_version}", ""]
    if override:
        lines += [f"**Released by override.** {override.name}: {override.reason}", ""]
    lines += ["## Robot", "", f"Embodiment `{body.name}`, contract `{contract.contract_id}`.", ""]
    lines += [f"- camera `{camera.name}`: {camera.width} x {camera.height} pixels" for camera in body.cameras]
    lines += [f"- action: {len(body.action.dims)} dimensions; proprio: {len(body.proprio.dims)}", "", "## Evaluation", ""]
    if verdict is None:
        lines += ["No verdict of the gate is known for these weights."]
    else:
        lines += [f"Outcome of the gate: **{verdict.decided}**.", "", *(f"- {reason}" for reason in verdict.reasons)]
    lines += ["", "## Parts", ""]
    for part in sorted({part_of(path) for path in files}):
        chosen = [file for path, file in files.items() if part_of(path) == part]
        lines.append(f"- {part}: {len(chosen)} files, {sum(file.size for file in chosen)} bytes")
    return "\n".join(lines) + "\n"
