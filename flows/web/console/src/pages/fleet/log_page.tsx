// What persons ordered of the fleet and what its rules did, up to a time; the controller's chained log, checked here.
import { answer, api } from "../../api/client";
import type { components } from "../../api/schema";
import { go, useAddress, withQuery } from "../../app/address";
import { Link } from "../../ui/link";
import { Shown, useResource } from "../../ui/resource";
import { type Column, Rows } from "../../ui/rows";
import { Empty, Failure } from "../../ui/states";
import { time } from "./names";

type Line = components["schemas"]["FleetLogLine"];

const COLUMNS: readonly Column<Line>[] = [
  { name: "Entry", show: (row) => row.number, width: "4rem" },
  { name: "When", show: (row) => time(row.at_s), width: "13rem" },
  { name: "Who", show: (row) => `${row.subject} (${row.role})`, width: "12rem" },
  { name: "What", show: (row) => row.action, width: "12rem" },
  { name: "Detail", show: (row) => <span title={row.detail}>{row.detail}</span> },
];

export function FleetLogPage() {
  const until = useAddress().searchParams.get("until") ?? "";
  const until_s = until ? Date.parse(until) / 1000 || 0 : 0;
  const log = useResource(() => answer(api.GET("/api/fleet/log", { params: { query: { until_s } } })), [until_s]);
  return (
    <>
      <h1>The fleet's log</h1>
      <p><Link to="/fleet">Back to the fleet</Link></p>
      <div class="bar"><label>Up to<input type="datetime-local" value={until} onChange={(event) => go(withQuery({ until: event.currentTarget.value }), true)} /></label></div>
      <Shown of={log} what="the log">
        {({ lines, count, head, problem }) => (
          <>
            {problem ? <Failure reason={`The chain does not hold: ${problem}`} /> : <p class="quiet">{count} entries, the chain holds; last hash <code>{head.slice(0, 16)}</code>. <code>actwright fleet verify --head HASH</code> proves that none is missing at the end.</p>}
            {lines.length === 0 ? <Empty what="Nothing was ordered until then." /> : <Rows label="Entries" rows={lines} columns={COLUMNS} keyOf={(row) => String(row.number)} />}
          </>
        )}
      </Shown>
    </>
  );
}
