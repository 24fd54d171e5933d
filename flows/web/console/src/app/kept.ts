// What this browser keeps for a page that is loaded again without connection: the files, by a worker, and small documents.

/** Not in the way of the first page; browsers allow it on loopback and by TLS. */
export function keepFiles(): void {
  void navigator.serviceWorker?.register("/worker.js").catch(() => {});
}

export function remember(name: string, document: unknown): void {
  localStorage.setItem(`actwright:${name}`, JSON.stringify(document));
}

export function remembered<T>(name: string): T | null {
  try {
    return JSON.parse(localStorage.getItem(`actwright:${name}`) ?? "null") as T | null;
  } catch {
    return null;
  }
}
