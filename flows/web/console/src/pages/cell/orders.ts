// Orders to a cell, and what came of the last one.
import { useState } from "preact/hooks";
import { answer, api } from "../../api/client";
import type { components } from "../../api/schema";

export type OrderRequest = components["schemas"]["OrderRequest"];

export interface Desk {
  give: (order: Pick<OrderRequest, "kind"> & Partial<OrderRequest>) => Promise<boolean>;
  said: string;
  isBad: boolean;
  isBusy: boolean;
}

export function useDesk(cell: string): Desk {
  const [said, setSaid] = useState({ text: "", isBad: false });
  const [isBusy, setBusy] = useState(false);
  const give: Desk["give"] = async (order) => {
    setBusy(true);
    const path = { cell };
    const came = await answer(api.POST("/api/cells/{cell}/orders", { params: { path }, body: order as OrderRequest }));
    setBusy(false);
    if ("reason" in came) {
      setSaid({ text: came.reason, isBad: true });
      return false;
    }
    const { outcome, reason, revision } = came.data;
    const isDone = outcome === "applied";
    setSaid({ text: `${order.kind}: ${outcome}${revision ? `, revision ${revision}` : ""}${reason ? `: ${reason}` : ""}`, isBad: !isDone });
    return isDone;
  };
  return { give, said: said.text, isBad: said.isBad, isBusy };
}
