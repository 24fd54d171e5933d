// Every page: its address, its name, and the component that shows it. A page that others link to has its own pattern.
import type { ComponentType } from "preact";
import { CellPage } from "../pages/cell/cell_page";
import { CellsPage } from "../pages/cell/cells_page";
import { EpisodePage } from "../pages/episodes/episode_page";
import { EpisodesPage } from "../pages/episodes/episodes_page";
import { FailuresPage } from "../pages/failures/failures_page";
import { FleetPage } from "../pages/fleet/fleet_page";
import { FleetLogPage } from "../pages/fleet/log_page";
import { RanPage } from "../pages/fleet/ran_page";
import { LabellingPage } from "../pages/labelling/labelling_page";
import { LineagePage } from "../pages/lineage/lineage_page";
import { CardPage } from "../pages/models/card_page";
import { ModelPage } from "../pages/models/model_page";
import { OperatorsPage } from "../pages/operators/operators_page";
import { RunsPage } from "../pages/runs/runs_page";
import { ModelsPage } from "../pages/models/models_page";
import { StudiesPage } from "../pages/studies/studies_page";
import { TrialPage } from "../pages/trials/trial_page";
import { TrialsPage } from "../pages/trials/trials_page";

export interface PageProps {
  parts: Record<string, string>;
}

export interface Page {
  pattern: string;
  title: string;
  show: ComponentType<PageProps>;
  /** The letter after "g" that opens it; only pages in the menu have one. */
  letter?: string;
}

export const PAGES: readonly Page[] = [
  { pattern: "/cells", title: "Cells", show: CellsPage, letter: "c" },
  { pattern: "/cells/:cell", title: "Cell", show: CellPage },
  { pattern: "/episodes", title: "Episodes", show: EpisodesPage, letter: "e" },
  { pattern: "/episodes/:place/:episode", title: "Episode", show: EpisodePage },
  { pattern: "/failures", title: "Failures", show: FailuresPage, letter: "f" },
  { pattern: "/labelling", title: "Labelling", show: LabellingPage, letter: "l" },
  { pattern: "/models", title: "Models", show: ModelsPage, letter: "m" },
  { pattern: "/models/studies", title: "Studies", show: StudiesPage, letter: "s" },
  { pattern: "/models/:name/:version", title: "Model", show: ModelPage },
  { pattern: "/models/:name/:version/card", title: "Model card", show: CardPage },
  { pattern: "/runs", title: "Runs", show: RunsPage, letter: "u" },
  { pattern: "/lineage", title: "Lineage", show: LineagePage, letter: "n" },
  { pattern: "/fleet", title: "Fleet", show: FleetPage, letter: "r" },
  { pattern: "/fleet/log", title: "The fleet's log", show: FleetLogPage },
  { pattern: "/fleet/ran", title: "What ran where", show: RanPage },
  { pattern: "/trials", title: "Trials", show: TrialsPage, letter: "p" },
  { pattern: "/trials/:study", title: "Trial", show: TrialPage },
  { pattern: "/operators", title: "Operators", show: OperatorsPage, letter: "o" },
];

export const FIRST = "/cells";
