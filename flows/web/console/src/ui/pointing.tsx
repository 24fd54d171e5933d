// Points on an image: set by mouse, pen or finger, or by a cursor that the arrow keys move and the space bar sets.
import { useEffect, useRef, useState } from "preact/hooks";

/** Shares of the image's width and height, 0 to 1. */
export interface Spot {
  x: number;
  y: number;
}

interface PointingProps {
  label: string;
  spots: readonly Spot[];
  add: (spot: Spot) => void;
}

const MIDDLE: Spot = { x: 0.5, y: 0.5 };
const ARM = 0.03; // of the cursor

export function Pointing({ label, spots, add }: PointingProps) {
  const [cursor, setCursor] = useState(MIDDLE);
  const [isKeyed, setKeyed] = useState(false);
  const overlay = useRef<SVGSVGElement>(null);
  useEffect(() => overlay.current?.focus({ preventScroll: true }), []); // the keys work at once
  const down = (event: PointerEvent) => {
    if (event.button !== 0) return;
    const box = (event.currentTarget as SVGElement).getBoundingClientRect();
    add({ x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height });
  };
  const pressed = (event: KeyboardEvent) => {
    const step = event.shiftKey ? 0.05 : 0.01;
    const steps: Record<string, Spot> = { ArrowLeft: { x: -step, y: 0 }, ArrowRight: { x: step, y: 0 }, ArrowUp: { x: 0, y: -step }, ArrowDown: { x: 0, y: step } };
    const by = steps[event.key];
    if (by) setCursor((now) => ({ x: inside(now.x + by.x), y: inside(now.y + by.y) }));
    else if (event.key === " ") add(cursor);
    else return;
    setKeyed(true);
    event.preventDefault();
    event.stopPropagation(); // the page has other uses of these keys
  };
  return (
    <svg ref={overlay} class="pointing" viewBox="0 0 1 1" preserveAspectRatio="none" role="application" aria-label={`${label}: arrows move the cursor, the space bar sets a point. ${spots.length} points are set.`} tabindex={0} onPointerDown={down} onKeyDown={pressed}>
      <Way spots={spots} name="drawn" />
      {isKeyed && <path class="cursor" d={`M${cursor.x - ARM} ${cursor.y}h${2 * ARM}M${cursor.x} ${cursor.y - ARM}v${2 * ARM}`} />}
    </svg>
  );
}

/** A line through the points; the last one is the larger. name: its class. */
export function Way({ spots, name }: { spots: readonly Spot[]; name: string }) {
  if (spots.length === 0) return null;
  return (
    <g class={name}>
      <polyline points={spots.map((one) => `${one.x},${one.y}`).join(" ")} />
      {spots.map((one, n) => <circle key={n} cx={one.x} cy={one.y} r={n === spots.length - 1 ? 0.016 : 0.009} />)}
    </g>
  );
}

function inside(share: number): number {
  return Math.max(0, Math.min(1, share));
}
