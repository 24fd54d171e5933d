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

export function lineageOf(what: string): string {
  return `/lineage?of=${encodeURIComponent(what)}`;
}
