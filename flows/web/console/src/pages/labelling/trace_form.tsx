// Which way the gripper goes from one frame on: 1 to 5 points, for which the person may look at the frames that follow.
import { useState } from "preact/hooks";
import { useKeys } from "../../app/keys";
import { Pointing, type Spot } from "../../ui/pointing";
import { frameAddress, type Said, type Task } from "./task";

const MOST_POINTS = 5;

export function TraceForm({ place, asked, say }: { place: string; asked: Task; say: (said: Said) => void }) {
  const [spots, setSpots] = useState<readonly Spot[]>([]);
  const [at, setAt] = useState(asked.frame);
  const last = asked.frames - 1;
  const show = (frame: number) => setAt(Math.max(asked.frame, Math.min(last, frame)));
  const add = (spot: Spot) => setSpots((now) => [...now, spot].slice(0, MOST_POINTS));
  const back = () => setSpots((now) => now.slice(0, -1));
  const send = () => spots.length > 0 && say({ trace: spots.map(({ x, y }) => [x, y]) });
  useKeys([
    { key: ".", does: "look ahead: the next frame", run: () => show(at + 1) },
    { key: ",", does: "the frame before", run: () => show(at - 1) },
    { key: "u", does: "take the last point back", run: back },
    { key: "Enter", does: "keep the trace", run: send },
    { key: "a", does: "it cannot be told", run: () => say({ abstained: true }) },
  ]);
  return (
    <figure class="camera">
      <div class="picture">
        <img src={frameAddress(place, asked, at)} alt={`${asked.camera}, frame ${at}: draw from frame ${asked.frame} to the end`} draggable={false} />
        <Pointing label="The trace" spots={spots} add={add} />
      </div>
      <div class="axis">
        <input type="range" min={asked.frame} max={last} value={at} aria-label="Look ahead" onInput={(event) => show(Number(event.currentTarget.value))} />
        <output>{at === asked.frame ? "the frame that is asked" : `${at - asked.frame} frames on`}; {spots.length} of {MOST_POINTS} points, the first where the gripper is at frame {asked.frame}</output>
      </div>
      <div class="bar">
        <button type="button" class="main" disabled={spots.length === 0} onClick={send}>Keep the trace</button>
        <button type="button" title="u" disabled={spots.length === 0} onClick={back}>Take the last point back</button>
        <button type="button" title="a" onClick={() => say({ abstained: true })}>It cannot be told</button>
      </div>
    </figure>
  );
}
