import { answer, api } from "../../api/client";
import type { components } from "../../api/schema";
import { go } from "../../app/address";
import { Shown, useResource } from "../../ui/resource";
import { type Column, Rows } from "../../ui/rows";
import { Empty } from "../../ui/states";
import { Outcome } from "./outcome";

type ModelRow = components["schemas"]["ModelRow"];

const COLUMNS: readonly Column<ModelRow>[] = [
  { name: "Model", show: (row) => `${row.name}/${row.version}` },
  { name: "Alias", show: (row) => row.alias, width: "8rem" },
  { name: "Gate", show: (row) => <Outcome outcome={row.outcome} />, width: "9rem" },
  { name: "Solved", show: (row) => row.evaluation, width: "7rem" },
  { name: "Data set", show: (row) => row.dataset_version.slice(0, 16) },
  { name: "Contract", show: (row) => row.contract_id.slice(0, 16) },
];

export function ModelsPage() {
  const models = useResource(() => answer(api.GET("/api/models")), []);
  return (
    <>
      <h1>Models</h1>
      <Shown of={models} what="models">
        {({ models: rows }) =>
          rows.length === 0 ? (
            <Empty what="No model was judged here yet."><code>actwright run</code> trains, judges and registers one.</Empty>
          ) : (
            <Rows label="Models" rows={rows} columns={COLUMNS} keyOf={(row) => row.step} open={(row) => go(`/models/${encodeURIComponent(row.name)}/${row.version}`)} />
          )
        }
      </Shown>
    </>
  );
}
