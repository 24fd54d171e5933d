// Every page: its address, its name, and where its component is loaded from. A page that others link to has its own pattern.
import type { ComponentType } from "preact";
import { askOf, partAddress } from "../pages/episodes/ask";

export interface PageProps {
  parts: Record<string, string>;
}

export interface Page {
  pattern: string;
  title: string;
  load: () => Promise<ComponentType<PageProps>>;
  /** The letter after "g" that opens it; only pages in the menu have one. */
  letter?: string;
  /** What it asks the API for first, which is asked before it is loaded. */
  early?: (query: URLSearchParams) => readonly string[];
}

export const PAGES: readonly Page[] = [
  { pattern: "/cells", title: "Cells", load: async () => (await import("../pages/cell/cells_page")).CellsPage, letter: "c", early: () => ["/api/cells"] },
  { pattern: "/cells/:cell", title: "Cell", load: async () => (await import("../pages/cell/cell_page")).CellPage },
  { pattern: "/episodes", title: "Episodes", load: async () => (await import("../pages/episodes/episodes_page")).EpisodesPage, letter: "e", early: (query) => [partAddress(askOf(query), 0), "/api/places"] },
  { pattern: "/episodes/:place/:episode", title: "Episode", load: async () => (await import("../pages/episodes/episode_page")).EpisodePage },
  { pattern: "/failures", title: "Failures", load: async () => (await import("../pages/failures/failures_page")).FailuresPage, letter: "f" },
  { pattern: "/labelling", title: "Labelling", load: async () => (await import("../pages/labelling/labelling_page")).LabellingPage, letter: "l" },
  { pattern: "/models", title: "Models", load: async () => (await import("../pages/models/models_page")).ModelsPage, letter: "m", early: () => ["/api/models"] },
  { pattern: "/models/studies", title: "Studies", load: async () => (await import("../pages/studies/studies_page")).StudiesPage, letter: "s" },
  { pattern: "/models/:name/:version", title: "Model", load: async () => (await import("../pages/models/model_page")).ModelPage },
  { pattern: "/models/:name/:version/card", title: "Model card", load: async () => (await import("../pages/models/card_page")).CardPage },
  { pattern: "/runs", title: "Runs", load: async () => (await import("../pages/runs/runs_page")).RunsPage, letter: "u" },
  { pattern: "/lineage", title: "Lineage", load: async () => (await import("../pages/lineage/lineage_page")).LineagePage, letter: "n" },
  { pattern: "/fleet", title: "Fleet", load: async () => (await import("../pages/fleet/fleet_page")).FleetPage, letter: "r" },
  { pattern: "/fleet/log", title: "The fleet's log", load: async () => (await import("../pages/fleet/log_page")).FleetLogPage },
  { pattern: "/fleet/ran", title: "What ran where", load: async () => (await import("../pages/fleet/ran_page")).RanPage },
  { pattern: "/trials", title: "Trials", load: async () => (await import("../pages/trials/trials_page")).TrialsPage, letter: "p" },
  { pattern: "/trials/:study", title: "Trial", load: async () => (await import("../pages/trials/trial_page")).TrialPage },
  { pattern: "/operators", title: "Operators", load: async () => (await import("../pages/operators/operators_page")).OperatorsPage, letter: "o" },
];

export const FIRST = "/cells";

const loaded = new Map<Page, ComponentType<PageProps>>();

/** Load the component of a page, once. */
export async function load(page: Page): Promise<void> {
  if (!loaded.has(page)) loaded.set(page, await page.load());
}

/** The component of a page, where it was loaded. */
export function loadedOf(page: Page): ComponentType<PageProps> | undefined {
  return loaded.get(page);
}

/** The page of a path, with the named parts of it. */
export function pageAt(path: string): { page: Page; parts: Record<string, string> } | null {
  for (const page of PAGES) {
    const parts = matched(page.pattern, path);
    if (parts) return { page, parts };
  }
  return null;
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
