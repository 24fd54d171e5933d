// The depth that the model predicted: decoded where its codec is here, and as codes that a person may change.
import { useState } from "preact/hooks";
import type { LiveBody, LiveDecision } from "./live";
import type { Desk } from "./orders";

interface DepthProps {
  cell: string;
  body: LiveBody;
  decision: LiveDecision;
  desk: Desk;
  /** Only the person with the pen edits. */
  mayEdit: boolean;
}

export function Depth({ cell, body, decision, desk, mayEdit }: DepthProps) {
  const [edited, setEdited] = useState<readonly number[] | null>(null);
  const [brush, setBrush] = useState(0);
  const [hasCodec, setHasCodec] = useState(true);
  const [at, setAt] = useState(-1); // of the cursor; -1 until a key moves it
  if (decision.depth.length === 0) return <p class="quiet">This decision predicted no depth (level {decision.level || "not told"}).</p>;
  const codes = edited ?? decision.depth;
  const columns = body.depth_grid[1] as number;
  const paint = (place: number) => {
    if (mayEdit) setEdited(codes.map((code, index) => (index === place ? brush : code)));
  };
  const pressed = (event: KeyboardEvent) => {
    const steps: Record<string, number> = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
    const by = steps[event.key];
    const to = Math.max(at, 0) + (by ?? 0);
    if (by !== undefined && to >= 0 && to < codes.length) setAt(at < 0 ? 0 : to);
    else if (event.key === " ") paint(Math.max(at, 0));
    else if (by === undefined) return;
    event.preventDefault();
  };
  const send = async () => {
    if (edited && (await desk.give({ kind: "edit", depth: [...edited] }))) setEdited(null);
  };
  return (
    <section aria-label="Predicted depth">
      <h2>Depth</h2>
      <div class="depths">
        {hasCodec && <img class="depth" src={`/api/cells/${encodeURIComponent(cell)}/depth/${decision.number}`} alt="Decoded depth of the last decision" onError={() => setHasCodec(false)} />}
        <svg class="codes" viewBox={`0 0 ${columns} ${Math.ceil(codes.length / columns)}`} role={mayEdit ? "application" : "img"} aria-label={`${codes.length} depth codes of 0 to ${body.depth_codes - 1}${mayEdit ? ": arrows choose one, the space bar paints it" : ""}`} tabindex={mayEdit ? 0 : undefined} onKeyDown={mayEdit ? pressed : undefined}>
          {codes.map((code, index) => (
            <rect key={index} x={index % columns} y={Math.floor(index / columns)} width="1" height="1" fill={`hsl(210 60% ${15 + (70 * code) / Math.max(1, body.depth_codes - 1)}%)`} class={mayEdit && index === at ? "at" : edited && code !== decision.depth[index] ? "changed" : ""} onPointerDown={() => paint(index)}>
              <title>{`code ${code}`}</title>
            </rect>
          ))}
        </svg>
      </div>
      {mayEdit && (
        <div class="bar" role="group" aria-label="Edit depth">
          <label>Code to paint <input type="number" min={0} max={body.depth_codes - 1} value={brush} onInput={(event) => setBrush(Math.min(body.depth_codes - 1, Math.max(0, Math.round(Number(event.currentTarget.value)) || 0)))} /></label>
          <button type="button" disabled={!edited || desk.isBusy} onClick={() => void send()}>Continue from it</button>
          <button type="button" disabled={!edited} onClick={() => setEdited(null)}>Undo all</button>
        </div>
      )}
    </section>
  );
}
