// What becomes of a drawing: it is sent as a path to follow, or as an edit from which the model continues.
import { useState } from "preact/hooks";
import { useKeys } from "../../app/keys";
import { type Drawing, toRange } from "./drawing";
import type { LiveBody, LiveDecision, Point } from "./live";
import type { Desk } from "./orders";

interface DrawBarProps {
  drawing: Drawing;
  desk: Desk;
  body: LiveBody;
  decision: LiveDecision | null;
  predicted: readonly Point[];
  size: { width: number; height: number };
}

export function DrawBar({ drawing, desk, body, decision, predicted, size }: DrawBarProps) {
  const [seconds, setSeconds] = useState(30);
  const canSend = drawing.points.length > 0 && !desk.isBusy;
  const follow = async () => {
    if (canSend && (await desk.give({ kind: "trace", camera: body.trace_camera, points: drawing.points.map(([x, y]) => [x, y]), ttl_ms: 1000 * seconds }))) drawing.set([]);
  };
  const edit = async () => {
    if (canSend && (await desk.give({ kind: "edit", trace: toRange(drawing.points, body.trace_range, size.width, size.height) }))) drawing.set([]);
  };
  useKeys([
    { key: "s", does: "send the drawn trace", run: () => void follow() },
    { key: "e", does: "send it as an edit of the predicted trace", run: () => void edit() },
    { key: "u", does: "take the last point back", run: drawing.undo },
    { key: "p", does: "begin with the predicted trace", run: () => drawing.set(predicted) },
  ]);
  return (
    <div class="bar" role="group" aria-label="Drawing">
      <span>{drawing.points.length} of {body.trace_points} points</span>
      <button type="button" class="main" disabled={!canSend} onClick={() => void follow()} title="s">Follow this trace</button>
      <label>for (s) <input type="number" min={1} max={600} value={seconds} onInput={(event) => setSeconds(Number(event.currentTarget.value) || 30)} /></label>
      <button type="button" disabled={!canSend} onClick={() => void edit()} title="e">Continue from it</button>
      <button type="button" disabled={!drawing.canUndo} onClick={drawing.undo} title="u">Undo</button>
      <button type="button" disabled={predicted.length === 0} onClick={() => drawing.set(predicted)} title="p">From the prediction</button>
      <button type="button" disabled={drawing.points.length === 0} onClick={() => drawing.set([])}>Clear</button>
      {decision?.steering && <button type="button" onClick={() => void desk.give({ kind: "clear" })}>End the steering</button>}
    </div>
  );
}
