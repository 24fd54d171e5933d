// The comparisons of this home: choose finished ones, and see them beside each other.
import { answer, api } from "../../api/client";
import type { components } from "../../api/schema";
import { useAddress } from "../../app/address";
import { MOST_BESIDE, useChosen } from "../../ui/chosen";
import { Shown, useResource } from "../../ui/resource";
import { type Column, Rows } from "../../ui/rows";
import { Empty } from "../../ui/states";
import { Outcome } from "../models/outcome";
import { StudiesBeside } from "./studies_beside";

type Study = components["schemas"]["StudyLine"];

export function StudiesPage() {
  const of = useAddress().searchParams.get("of") ?? "";
  return (
    <>
      <h1>Studies</h1>
      {of ? <StudiesBeside of={of} /> : <StudyList />}
    </>
  );
}

function StudyList() {
  const studies = useResource(() => answer(api.GET("/api/studies")), []);
  const { chosen, toggle, beside } = useChosen("/models/studies", "studies");
  const choose = (row: Study) => row.outcome && toggle(row.study);
  const columns: readonly Column<Study>[] = [
    { name: "", show: (row) => <input type="checkbox" tabIndex={-1} aria-label={`Choose ${row.study}`} disabled={!row.outcome} checked={chosen.includes(row.study)} onClick={(event) => event.stopPropagation()} onChange={() => choose(row)} />, width: "2.5rem" },
    { name: "Study", show: (row) => row.study, width: "11rem" },
    { name: "Candidate", show: (row) => row.candidate },
    { name: "Champion", show: (row) => row.champion },
    { name: "Where", show: (row) => row.setting, width: "7rem" },
    { name: "Trials", show: (row) => row.trials, width: "5rem" },
    { name: "Verdict", show: (row) => (row.problem ? <span class="bad" title={row.problem}>NOT PROVEN: {row.problem}</span> : row.outcome ? <Outcome outcome={row.outcome} /> : <span class="quiet" title={row.open}>{row.open}</span>) },
  ];
  return (
    <Shown of={studies} what="studies">
      {({ studies: rows }) =>
        rows.length === 0 ? (
          <Empty what="No policies were compared here yet."><code>actwright run</code> compares with the champion; <code>actwright study run</code> any two.</Empty>
        ) : (
          <>
            <div class="bar">
              <button type="button" class="main" disabled={chosen.length === 0} onClick={beside} title="b">Beside each other ({chosen.length})</button>
              <span class="quiet">Enter or a click chooses a finished study, at most {MOST_BESIDE}; b shows them.</span>
            </div>
            <Rows label="Studies" rows={rows} columns={columns} keyOf={(row) => row.study} open={choose} />
          </>
        )
      }
    </Shown>
  );
}
