"""Exchange with Label Studio: frames as tasks, and finished tasks as opinions.

Source of the formats: labelstud.io/guide/task_format (tasks and annotations) and labelstud.io/tags/keypointlabels (x and y in percent of
the image's width and height). A pixel's centre is its number and a half: pixel 0 of a side of 100 is
0.5 percent. The first label is never exported: the second person is blind to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from components.data.second_labels.opinion import AskedFrame, Opinion
from model_core.spec.errors import DatasetError, SpecError

CONFIG = """<View>
  <Image name="image" value="$image" zoom="true"/>
  <KeyPointLabels name="point" toName="image"><Label value="gripper" background="#ff6a00"/></KeyPointLabels>
  <Choices name="seen" toName="image" choice="single"><Choice value="not in the image"/><Choice value="cannot tell"/></Choices>
</View>
"""
TOOL = "label studio"


def task_of(asked: AskedFrame, image: str, size: tuple[int, int]) -> dict[str, Any]:
    """One task. image: the address of the frame, as Label Studio's server or its browser reaches it. size: its (width, height)."""
    named = {"episode": asked.episode, "camera": asked.camera, "frame": asked.frame}
    return {"data": {"image": image, **named, "width": size[0], "height": size[1]}}


def opinions_of(tasks: Any) -> list[Opinion]:
    """The opinions in an export of finished tasks (JSON, not JSON-MIN). Raises `DatasetError` naming the task that cannot be read."""
    if not isinstance(tasks, list):
        raise DatasetError(f"expected the list of an export of Label Studio, got {type(tasks).__name__}. Fix: export as JSON, not JSON-MIN")
    made: list[Opinion] = []
    for number, task in enumerate(tasks, start=1):
        try:
            data = task["data"]
            asked = AskedFrame(episode=str(data["episode"]), camera=str(data["camera"]), frame=int(data["frame"]))
            size = int(data["width"]), int(data["height"])
            made += [one for annotation in task.get("annotations", ()) for one in _opinion(asked, size, annotation)]
        except (KeyError, TypeError, ValueError, SpecError) as error:
            raise DatasetError(
                f"task {number} of the export: {error if isinstance(error, SpecError) else f'cannot be read ({error!r})'}. Fix: export the "
                "tasks that `actwright episodes label-tasks` wrote, as JSON"
            ) from error
    return made


def _opinion(asked: AskedFrame, size: tuple[int, int], annotation: dict[str, Any]) -> Sequence[Opinion]:
    """One opinion of an annotation; none where it was skipped."""
    if annotation.get("was_cancelled"):
        return ()
    results = annotation.get("result", ())
    points = [one for one in results if one["type"] == "keypointlabels"]
    said = [choice for one in results if one["type"] == "choices" for choice in one["value"]["choices"]]
    if len(points) > 1 or (points and said) or not (points or said):
        raise DatasetError(f"{len(points)} points and {said or 'no choice'} on one frame; expected one point or one choice")
    point = None
    if points:
        value = points[0]["value"]
        point = (float(value["x"]) / 100 * size[0] - 0.5, float(value["y"]) / 100 * size[1] - 0.5)
    author = annotation.get("completed_by", "unknown")
    name = str(author.get("email") or author.get("id")) if isinstance(author, dict) else f"user {author}"
    at = str(annotation.get("updated_at") or annotation.get("created_at") or "")
    return (Opinion(asked=asked, point=point, size=size, author=name, tool=TOOL, at=at, abstained="cannot tell" in said),)
