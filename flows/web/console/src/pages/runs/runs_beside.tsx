// Some trainings: what differs, what they reached, and their curves over each other.
import { useMemo } from "preact/hooks";
import { answer, api } from "../../api/client";
import type { components } from "../../api/schema";
import { lineageOf } from "../../app/address";
import { Curves, type Line } from "../../ui/curves";
import { Link } from "../../ui/link";
import { Shown, useResource } from "../../ui/resource";
import { shown } from "./runs_page";

type Beside = components["schemas"]["RunsBeside"];
type Curve = components["schemas"]["CurvesBeside"];

const MAIN = ["train/loss", "validation/loss", "speed/mfu"];
const TITLES: Readonly<Record<string, string>> = { evaluation: "What their checkpoints reached here", share: "Share of the frames trained on, by source", last: "Last values of the curves" };

export function RunsBeside({ of }: { of: string }) {
  const beside = useResource(() => answer(api.GET("/api/runs/beside", { params: { query: { of } } })), [of]);
  return (
    <>
      <p><Link to="/runs">All runs</Link></p>
      <Shown of={beside} what="the runs">{(found) => <Found found={found} />}</Shown>
    </>
  );
}

function Found({ found }: { found: Beside }) {
  const main = MAIN.flatMap((name) => found.curves.filter((curve) => curve.name === name));
  const others = found.curves.filter((curve) => !main.includes(curve));
  return (
    <div class="columns">
      <section>
        <Table title={found.params.length ? "Parameters that differ" : "No parameter differs"} found={found} rows={found.params.map((row) => [row.name, row.values.map((value) => value ?? "none")])} />
        {Object.entries(TITLES).map(([kind, title]) => {
          const rows = found.numbers.filter((row) => row.kind === kind);
          return rows.length > 0 && <Table key={kind} title={title} found={found} rows={rows.map((row) => [row.name, row.values.map((value) => (kind === "share" && value !== null ? `${(100 * value).toFixed(1)} %` : shown(value)))])} />;
        })}
      </section>
      <section aria-label="Curves">
        {main.map((curve) => <OneCurve key={curve.name} curve={curve} found={found} />)}
        {others.length > 0 && <details><summary>{others.length} further curves</summary>{others.map((curve) => <OneCurve key={curve.name} curve={curve} found={found} />)}</details>}
      </section>
    </div>
  );
}

function Table({ title, found, rows }: { title: string; found: Beside; rows: readonly (readonly [string, readonly string[]])[] }) {
  return (
    <table>
      <caption class="quiet">{title}</caption>
      <thead><tr><th scope="col">Of</th>{found.runs.map((run) => <th scope="col" key={run.id}><Link to={lineageOf(`run:${run.id}`)}>{run.id.slice(0, 12)}</Link></th>)}</tr></thead>
      <tbody>{rows.map(([name, values]) => <tr key={name}><th scope="row">{name}</th>{values.map((value, place) => <td key={found.runs[place]?.id}>{value}</td>)}</tr>)}</tbody>
    </table>
  );
}

function OneCurve({ curve, found }: { curve: Curve; found: Beside }) {
  const [x, lines] = useMemo(() => together(curve, found), [curve, found]);
  return <Curves title={curve.name} x={x} lines={lines} />;
}

/** Curves with steps of their own, over the steps that any of them has. */
function together(curve: Curve, found: Beside): [number[], Line[]] {
  const x = [...new Set(curve.lines.flatMap((line) => line.steps))].sort((one, other) => one - other);
  const lines = curve.lines.map((line) => {
    const at = new Map(line.steps.map((step, place) => [step, line.values[place] ?? null]));
    return { name: found.runs[line.run]?.id.slice(0, 12) ?? "", y: x.map((step) => at.get(step) ?? null) };
  });
  return [x, lines];
}
