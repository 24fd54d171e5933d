// Which frames of an episode are kept: two handles on one line, for pointer, finger and arrow keys. Letting go of one states it, and so does Enter.
import { useEffect, useState } from "preact/hooks";
import type { components } from "../../api/schema";

interface TrimProps {
  page: components["schemas"]["EpisodePage"];
  /** Called with the frame under a handle while it moves. */
  show: (frame: number) => void;
  keep: (first: number, end: number) => void;
}

export function TrimHandles({ page, show, keep }: TrimProps) {
  const last = page.recorded_length - 1;
  const [from, setFrom] = useState(page.first);
  const [to, setTo] = useState(page.end - 1);
  useEffect(() => {
    setFrom(page.first);
    setTo(page.end - 1);
  }, [page.first, page.end]);
  const moved = (set: (frame: number) => void) => (event: Event) => {
    const frame = Number((event.currentTarget as HTMLInputElement).value);
    set(frame);
    show(frame);
  };
  const state = () => {
    if (from !== page.first || to !== page.end - 1) keep(Math.min(from, to), Math.max(from, to) + 1);
  };
  const pressed = (event: KeyboardEvent) => event.key === "Enter" && state(); // not at each arrow key
  const shared = { type: "range", min: 0, max: last, onPointerUp: state, onKeyDown: pressed } as const;
  return (
    <div class="axis trim" role="group" aria-label="Frames that are kept">
      <div class="handles">
        <input {...shared} value={from} aria-label="Keep from" onInput={moved(setFrom)} />
        <input {...shared} value={to} aria-label="Keep up to" onInput={moved(setTo)} />
      </div>
      <output>keeps {Math.min(from, to)} to {Math.max(from, to)} of {page.recorded_length}</output>
    </div>
  );
}
