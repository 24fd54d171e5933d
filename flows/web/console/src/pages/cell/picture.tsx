// One camera with everything that is drawn on it. Points are set with mouse, pen, finger or keys.
import { useRef, useState } from "preact/hooks";
import type { components } from "../../api/schema";
import { type Drawing, within } from "./drawing";
import type { Point } from "./live";

interface PictureProps {
  camera: components["schemas"]["LiveCamera"];
  source: string;
  isStale: boolean;
  ageS: number;
  predicted: readonly Point[];
  passed: readonly Point[];
  applied: readonly Point[];
  /** Null where nobody draws on this camera, or may. */
  drawing: Drawing | null;
}

const NEAR = 0.04; // of the width: so near to a point, it is taken and moved

export function Picture({ camera, source, isStale, ageS, predicted, passed, applied, drawing }: PictureProps) {
  const { width, height, name } = camera;
  const [cursor, setCursor] = useState<Point>([width / 2, height / 2]);
  const [isKeyed, setKeyed] = useState(false);
  const moving = useRef(-1);
  const thin = width / 160;
  const at = (event: PointerEvent): Point => {
    const box = (event.currentTarget as SVGElement).getBoundingClientRect();
    // a coordinate is that of the middle of a pixel
    return within([((event.clientX - box.left) / box.width) * width - 0.5, ((event.clientY - box.top) / box.height) * height - 0.5], width, height);
  };
  const down = (event: PointerEvent) => {
    if (!drawing || event.button !== 0) return;
    event.preventDefault();
    (event.currentTarget as SVGElement).setPointerCapture(event.pointerId);
    const point = at(event);
    moving.current = nearest(drawing.points, point, NEAR * width);
    if (moving.current >= 0) drawing.keep();
    else {
      moving.current = drawing.points.length;
      drawing.add(point);
    }
  };
  const moved = (event: PointerEvent) => {
    if (drawing && moving.current >= 0) drawing.move(moving.current, at(event));
  };
  const pressed = (event: KeyboardEvent) => {
    if (!drawing) return;
    const step = (event.shiftKey ? 0.05 : 0.01) * width;
    const steps: Record<string, Point> = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    const by = steps[event.key];
    if (by) setCursor((now) => within([now[0] + by[0], now[1] + by[1]], width, height));
    else if (event.key === "Enter" || event.key === " ") drawing.add(cursor);
    else return;
    setKeyed(true);
    event.preventDefault();
  };
  return (
    <figure class={`picture ${isStale ? "stale" : ""}`}>
      <figcaption>
        {name} {isStale ? <b class="bad">not live: taken {ageS.toFixed(1)} s ago</b> : <span class="quiet">{ageS.toFixed(1)} s ago</span>}
      </figcaption>
      <div class="canvas">
        {source && <img src={source} alt={`What camera ${name} saw at the last decision`} width={width} height={height} />}
        <svg viewBox={`-0.5 -0.5 ${width} ${height}`} role={drawing ? "application" : "img"} aria-label={label(name, drawing)} tabindex={drawing ? 0 : undefined} class={drawing ? "draws" : ""} onPointerDown={down} onPointerMove={moved} onPointerUp={() => (moving.current = -1)} onPointerCancel={() => (moving.current = -1)} onKeyDown={pressed}>
          <Path points={passed} kind="passed" thin={thin} />
          <Path points={predicted} kind="predicted" thin={thin} />
          <Path points={applied} kind="applied" thin={thin} />
          {drawing && <Path points={drawing.points} kind="drawn" thin={thin} dots />}
          {drawing && isKeyed && <path class="cursor" stroke-width={thin} d={`M${cursor[0] - 4 * thin} ${cursor[1]}h${8 * thin}M${cursor[0]} ${cursor[1] - 4 * thin}v${8 * thin}`} />}
        </svg>
      </div>
    </figure>
  );
}

function label(name: string, drawing: Drawing | null): string {
  if (!drawing) return `Traces on ${name}`;
  return `Draw on ${name}: arrows move the cursor, Enter sets a point. ${drawing.points.length} points are set.`;
}

function nearest(points: readonly Point[], to: Point, limit: number): number {
  const far = points.map(([x, y]) => Math.hypot(x - to[0], y - to[1]));
  const best = far.indexOf(Math.min(...far));
  return best >= 0 && (far[best] ?? Infinity) <= limit ? best : -1;
}

function Path({ points, kind, thin, dots = false }: { points: readonly Point[]; kind: string; thin: number; dots?: boolean }) {
  if (points.length === 0) return null;
  const last = points.at(-1);
  return (
    <g class={kind}>
      <polyline points={points.map((one) => one.join()).join(" ")} stroke-width={1.6 * thin} />
      {dots && points.map(([x, y], index) => <circle key={index} cx={x} cy={y} r={2.4 * thin} />)}
      {!dots && last && <circle cx={last[0]} cy={last[1]} r={1.8 * thin} />}
    </g>
  );
}
