// A path that is being drawn: 1 to 5 points in pixels of a camera, each step can be taken back.
import { useState } from "preact/hooks";
import type { Point } from "./live";

export interface Drawing {
  points: readonly Point[];
  add: (point: Point) => void;
  move: (index: number, point: Point) => void;
  /** Begin to move: what was there can be taken back as one step. */
  keep: () => void;
  undo: () => void;
  set: (points: readonly Point[]) => void;
  canUndo: boolean;
}

export function useDrawing(most: number): Drawing {
  const [state, setState] = useState<{ points: readonly Point[]; before: readonly (readonly Point[])[] }>({ points: [], before: [] });
  const step = (points: readonly Point[]) => setState((now) => ({ points, before: [...now.before, now.points].slice(-100) }));
  return {
    points: state.points,
    add: (point) => {
      if (state.points.length < most) step([...state.points, point]);
    },
    keep: () => setState((now) => ({ ...now, before: [...now.before, now.points].slice(-100) })),
    move: (index, point) => setState((now) => ({ ...now, points: now.points.map((one, place) => (place === index ? point : one)) })),
    undo: () => setState((now) => ({ points: now.before.at(-1) ?? now.points, before: now.before.slice(0, -1) })),
    set: step,
    canUndo: state.before.length > 0,
  };
}

export function within(point: Point, width: number, height: number): Point {
  const inside = (value: number, size: number) => Math.min(Math.max(value, 0), size - 0.01);
  return [inside(point[0], width), inside(point[1], height)];
}

/** From 0..range to pixels, as the model core has it: the range spans the first to the last pixel. */
export function toPixels(points: readonly Point[], range: number, width: number, height: number): Point[] {
  return points.map(([x, y]) => [(x / range) * (width - 1), (y / range) * (height - 1)] as const);
}

export function toRange(points: readonly Point[], range: number, width: number, height: number): [number, number][] {
  const scaled = (value: number, size: number) => Math.min(range, Math.max(0, Math.round((value / Math.max(1, size - 1)) * range)));
  return points.map(([x, y]) => [scaled(x, width), scaled(y, height)]);
}
