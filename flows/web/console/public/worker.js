// Keeps the files of the application in the browser, so that a page can be loaded again without connection. Answers of the API are never kept.
const KEPT = "actwright-files";
const FIRST = "/";

/** Fetch what the console has now and this browser has not; drop what is of an earlier version. */
async function keep() {
  const kept = await caches.open(KEPT);
  const answer = await fetch("/files.json", { cache: "no-store" });
  if (!answer.ok) return;
  const wanted = new Set([FIRST, ...(await answer.json())].map((name) => new URL(name, location.origin).href));
  const had = new Map((await kept.keys()).map((request) => [request.url, request]));
  await kept.addAll([...wanted].filter((address) => !had.has(address)));
  await kept.add(FIRST); // it names the other files, under the same address in each version
  for (const [address, request] of had) if (!wanted.has(address)) await kept.delete(request);
}

/** What the console answers, else what was kept. */
async function pageOf(event) {
  try {
    const answer = await fetch(event.request);
    event.waitUntil(keep().catch(() => {}));
    return answer;
  } catch (error) {
    const found = await caches.match(FIRST);
    if (!found) throw error;
    return found;
  }
}

addEventListener("install", (event) => event.waitUntil(keep().then(() => self.skipWaiting())));
addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));
addEventListener("fetch", (event) => {
  const { pathname } = new URL(event.request.url);
  if (event.request.method !== "GET") return;
  if (event.request.mode === "navigate" && !pathname.startsWith("/api/")) event.respondWith(pageOf(event));
  else if (pathname.startsWith("/assets/")) event.respondWith(caches.match(event.request).then((found) => found ?? fetch(event.request)));
});
