// Answers that were asked for before the application was there. Each is used once, by the first call that asks the same, and soon.
const KEPT_MS = 10_000;
const asked = new Map<string, Promise<Response | undefined>>();

export function askEarly(addresses: readonly string[]): void {
  for (const address of addresses) asked.set(keyOf(new URL(address, location.origin)), fetch(address, { credentials: "same-origin" }).catch(() => undefined));
  setTimeout(() => asked.clear(), KEPT_MS);
}

/** As `fetch`. An early answer that failed or was refused is asked for again: the person may have signed in since. */
export async function fetchEarly(request: Request): Promise<Response> {
  const key = keyOf(new URL(request.url));
  const early = request.method === "GET" ? asked.get(key) : undefined;
  asked.delete(key);
  const answer = await early;
  return answer?.ok ? answer : fetch(request);
}

function keyOf(url: URL): string {
  url.searchParams.sort();
  return url.pathname + url.search;
}
