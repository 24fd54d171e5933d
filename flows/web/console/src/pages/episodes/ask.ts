// What is asked of the table of episodes, as the address of the page says it.
export type Ask = Record<string, string | number | boolean>;

export const PART = 100; // rows that are fetched together
export const FURTHER = ["task", "robot", "producer", "model", "cell", "min_frames", "max_frames"] as const; // asked for below "More filters"
const NAMES = ["text", "place", "kind", "outcome", "findings", "choice", ...FURTHER] as const;

export function sortOf(query: URLSearchParams): string {
  return query.get("sort") ?? "set";
}

export function askOf(query: URLSearchParams): Ask {
  const sort = sortOf(query);
  const ask: Ask = { sort: sort.replace("-", ""), descending: sort.startsWith("-") };
  for (const name of NAMES) if (query.get(name)) ask[name] = query.get(name) ?? "";
  return ask;
}

export function partQuery(ask: Ask, part: number): Ask {
  return { ...ask, offset: part * PART, limit: PART };
}

/** The address of a part in the API. */
export function partAddress(ask: Ask, part: number): string {
  const query = Object.entries(partQuery(ask, part)).map(([name, value]) => [name, String(value)]);
  return `/api/episodes?${new URLSearchParams(query)}`;
}
