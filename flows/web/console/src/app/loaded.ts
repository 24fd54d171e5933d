// The component of the page that is shown, loaded when it is first needed; all others are loaded once the first page stands.
import type { ComponentType } from "preact";
import { useEffect, useState } from "preact/hooks";
import { keepFiles } from "./kept";
import { load, loadedOf, type Page, type PageProps, PAGES } from "./pages";

const OTHERS_AFTER_MS = 1500;

export function useLoaded(page: Page | undefined): { show: ComponentType<PageProps> | undefined; isFailed: boolean } {
  const [, setTurn] = useState(0);
  const [failed, setFailed] = useState<Page | null>(null);
  const show = page && loadedOf(page);
  useEffect(() => {
    if (page && !show) load(page).then(() => setTurn((turn) => turn + 1), () => setFailed(page));
  }, [page, show]);
  return { show, isFailed: page !== undefined && failed === page };
}

export function useOthersLoaded(): void {
  useEffect(() => {
    const others = setTimeout(() => {
      PAGES.forEach((page) => void load(page).catch(() => {})); // opening it tries again
      keepFiles();
    }, OTHERS_AFTER_MS);
    return () => clearTimeout(others);
  }, []);
}
