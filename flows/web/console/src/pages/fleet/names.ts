// Releases and times as people read them.
import type { components } from "../../api/schema";

export type FleetPageDocument = components["schemas"]["FleetPage"];
export type State = components["schemas"]["FleetState"];
export type Cell = components["schemas"]["FleetCell"];
export type Rollout = components["schemas"]["FleetRollout"];

export type Named = (digest: string) => string;

/** A digest by the model version that was offered under it, if one was. */
export function namesOf(page: FleetPageDocument): Named {
  const versions = new Map(page.releases.map((one) => [one.digest, one.model_version]));
  return (digest) => (digest ? `${versions.get(digest) ?? "release"} (${digest.slice(0, 12)})` : "none");
}

export function time(at_s: number): string {
  return at_s ? new Date(1000 * at_s).toLocaleString() : "never";
}
