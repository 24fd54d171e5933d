// Trainings as MLflow recorded them: choose some, and see them beside each other.
import { answer, api } from "../../api/client";
import type { components } from "../../api/schema";
import { useAddress } from "../../app/address";
import { MOST_BESIDE, useChosen } from "../../ui/chosen";
import { Shown, useResource } from "../../ui/resource";
import { type Column, Rows } from "../../ui/rows";
import { Empty } from "../../ui/states";
import { time } from "../fleet/names";
import { RunsBeside } from "./runs_beside";

type Run = components["schemas"]["RunLine"];

export function RunsPage() {
  const of = useAddress().searchParams.get("of") ?? "";
  return (
    <>
      <h1>Runs</h1>
      {of ? <RunsBeside of={of} /> : <RunList />}
    </>
  );
}

function RunList() {
  const runs = useResource(() => answer(api.GET("/api/runs")), []);
  const { chosen, toggle, beside } = useChosen("/runs", "runs");
  const columns: readonly Column<Run>[] = [
    { name: "", show: (row) => <input type="checkbox" tabIndex={-1} aria-label={`Choose ${row.id}`} checked={chosen.includes(row.id)} onClick={(event) => event.stopPropagation()} onChange={() => toggle(row.id)} />, width: "2.5rem" },
    { name: "Run", show: (row) => row.id, width: "14rem" },
    { name: "Name", show: (row) => row.name },
    { name: "Began", show: (row) => time(row.started_s), width: "13rem" },
    { name: "Status", show: (row) => <span class={row.status === "finished" ? "good" : "warn"}>{row.status}</span>, width: "7rem" },
    { name: "Loss", show: (row) => shown(row.loss), width: "7rem" },
    { name: "Held-out loss", show: (row) => shown(row.held_out_loss), width: "8rem" },
    { name: "MFU", show: (row) => shown(row.mfu), width: "6rem" },
  ];
  return (
    <Shown of={runs} what="runs">
      {({ runs: rows, absent }) =>
        rows.length === 0 ? (
          <Empty what={absent || "No training was recorded yet."}><code>actwright run</code> trains and records one.</Empty>
        ) : (
          <>
            <div class="bar">
              <button type="button" class="main" disabled={chosen.length === 0} onClick={beside} title="b">Beside each other ({chosen.length})</button>
              <span class="quiet">Enter or a click chooses a run, at most {MOST_BESIDE}; b shows them.</span>
            </div>
            <Rows label="Runs" rows={rows} columns={columns} keyOf={(row) => row.id} open={(row) => toggle(row.id)} />
          </>
        )
      }
    </Shown>
  );
}

export function shown(value: number | null): string {
  return value === null ? "none" : String(Number(value.toPrecision(4)));
}
