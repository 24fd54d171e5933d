// The address of the page is its state: views read what they show from it, and change it to show something else.
import { useSyncExternalStore } from "preact/compat";

const CHANGED = "actwright:address";

export function currentAddress(): string {
  return location.pathname + location.search;
}

/** Go to an address of this application. keep: replace the entry in the history, as for a filter that is typed. */
export function go(address: string, keep = false): void {
  if (address === currentAddress()) return;
  if (keep) history.replaceState(null, "", address);
  else history.pushState(null, "", address);
  dispatchEvent(new Event(CHANGED));
}

function subscribe(listener: () => void): () => void {
  addEventListener(CHANGED, listener);
  addEventListener("popstate", listener);
  return () => {
    removeEventListener(CHANGED, listener);
    removeEventListener("popstate", listener);
  };
}

export function useAddress(): URL {
  const address = useSyncExternalStore(subscribe, currentAddress);
  return new URL(address, location.origin);
}

/** The address with these parts of the query set; "" takes one out. */
export function withQuery(parts: Record<string, string>): string {
  const url = new URL(location.href);
  for (const [name, value] of Object.entries(parts)) {
    if (value) url.searchParams.set(name, value);
    else url.searchParams.delete(name);
  }
  return url.pathname + url.search;
}

/** The named parts of a path, or null where it is another one. pattern: such as "/models/:name/:version". */
export function matched(pattern: string, path: string): Record<string, string> | null {
  const wanted = pattern.split("/");
  const given = path.replace(/\/$/, "").split("/");
  if (wanted.length !== given.length) return null;
  const parts: Record<string, string> = {};
  for (const [index, part] of wanted.entries()) {
    const value = given[index] ?? "";
    if (part.startsWith(":")) parts[part.slice(1)] = decodeURIComponent(value);
    else if (part !== value) return null;
  }
  return parts;
}
