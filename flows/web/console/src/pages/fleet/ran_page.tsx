// What every cell ran at a time, with the evidence that the controller has; what is not known is said so.
import { answer, api } from "../../api/client";
import type { components } from "../../api/schema";
import { go, lineageOf, useAddress, withQuery } from "../../app/address";
import { Link } from "../../ui/link";
import { Shown, useResource } from "../../ui/resource";
import { type Column, Rows } from "../../ui/rows";
import { Empty } from "../../ui/states";
import { time } from "./names";

type CellAt = components["schemas"]["FleetCellAt"];

const PROOFS: Readonly<Record<string, string>> = { reports: "proven by reports", episode: "proven by an episode", "both sides": "told before and after", changed: "changed around then", before: "silent since", none: "not known" };

const COLUMNS: readonly Column<CellAt>[] = [
  { name: "Site", show: (row) => row.site, width: "8rem" },
  { name: "Cell", show: (row) => row.cell, width: "9rem" },
  { name: "Ran", show: (row) => (row.release ? <Link to={lineageOf(row.release)}>{row.model_version || "release"} ({row.release.slice(0, 12)})</Link> : "nothing") },
  { name: "Standing", show: (row) => <span class={isProven(row) ? "good" : "warn"} title={row.told}>{PROOFS[row.proof] ?? row.proof}</span>, width: "12rem" },
  { name: "Known from", show: (row) => <span title={row.told}>{row.from_s ? time(row.from_s) : ""}</span>, width: "13rem" },
  { name: "Known until", show: (row) => <span title={row.told}>{row.until_s ? time(row.until_s) : ""}</span>, width: "13rem" },
];

function isProven(cell: CellAt): boolean {
  return cell.proof === "reports" || cell.proof === "episode";
}

export function RanPage() {
  const at = useAddress().searchParams.get("at") ?? "";
  const at_s = at ? Date.parse(at) / 1000 || 0 : 0;
  const ran = useResource(() => answer(api.GET("/api/fleet/ran", { params: { query: { at_s } } })), [at_s]);
  return (
    <>
      <h1>What ran where</h1>
      <p><Link to="/fleet">Back to the fleet</Link></p>
      <div class="bar">
        <label>At<input type="datetime-local" step={1} value={at} onChange={(event) => go(withQuery({ at: event.currentTarget.value }))} /></label>
        {at && <button type="button" onClick={() => go(withQuery({ at: "" }))}>Now</button>}
      </div>
      <Shown of={ran} what="what ran where">
        {({ at_s: asked, cells, head }) =>
          cells.length === 0 ? (
            <Empty what="No cell is enrolled."><code>actwright fleet enrol cell-4 --site lab --key cell-4.pub.pem</code> lets one report.</Empty>
          ) : (
            <>
              <p>At <b>{time(asked)}</b>, by the controller's clock: {cells.filter(isProven).length} of {cells.length} cells are proven. <span class="quiet">Last hash of the log: <code>{head.slice(0, 16)}</code></span></p>
              <Rows label="Cells" rows={cells} columns={COLUMNS} keyOf={(row) => row.cell} />
            </>
          )
        }
      </Shown>
    </>
  );
}
