// What the driver was given, one curve for each dimension, with the range of the body.
import { useMemo } from "preact/hooks";
import { Curves } from "../../ui/curves";
import { useSeldom } from "../../ui/seldom";
import type { LiveBody, LiveRow } from "./live";

const DRAWN_EVERY_MS = 500;

export function Actions({ body, rows: all }: { body: LiveBody; rows: readonly LiveRow[] }) {
  const rows = useSeldom(all, DRAWN_EVERY_MS);
  const x = useMemo(() => rows.map((row) => row.number), [rows]);
  return useMemo(() => (
    <section aria-label="Actions" class="actions">
      <h2>Actions, by control step</h2>
      {body.actions.map((dim, index) => (
        <Curves key={dim.name} title={`${dim.name} (${dim.unit})`} x={x} height={110} lines={[{ name: dim.name, y: rows.map((row) => row.action[index] ?? null), limits: [dim.low, dim.high] }]} />
      ))}
      {rows.some((row) => row.clipped.length > 0) && <p class="warn">Clipped by the envelope lately: {[...new Set(rows.flatMap((row) => row.clipped))].join(", ")}</p>}
    </section>
  ), [rows, body]);
}
