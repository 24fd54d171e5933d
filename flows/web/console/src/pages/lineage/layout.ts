// Where the boxes of the picture stand: in columns by the longest way from what nothing was needed for, each near what it came from.
import type { components } from "../../api/schema";

type Page = components["schemas"]["LineagePage"];

export interface Box {
  id: string;
  kind: string;
  words: string;
  /** How many things it stands for: many cells of one site that ran the same are one box. */
  count: number;
  isStart: boolean;
  x: number;
  y: number;
}

export interface Way {
  from: Box;
  to: Box;
  how: string;
  /** Free places of the columns between, left ends, which it passes so that no box covers it. */
  past: readonly { x: number; y: number }[];
}

export const WIDTH = 152;
export const HEIGHT = 44;
const BETWEEN = 28;
const ACROSS = WIDTH + BETWEEN;
const DOWN = HEIGHT + 14;
const MOST_CELLS = 6;
const LONGEST = 17;

export function laidOut(page: Page): { boxes: Box[]; ways: Way[]; width: number; height: number } {
  const group = grouped(page);
  const boxes = new Map<string, Box>();
  const starts = new Set(page.starts.map((start) => start.id));
  for (const thing of page.things) {
    const id = group.get(thing.id) ?? thing.id;
    const known = boxes.get(id);
    if (known) boxes.set(id, { ...known, count: known.count + 1, words: `${known.count + 1} cells at ${thing.facts["site"] ?? ""}` });
    else boxes.set(id, { id, kind: thing.kind, words: shortened(thing.name), count: 1, isStart: starts.has(thing.id), x: 0, y: 0 });
  }
  const links = new Map<string, { used: string; made: string; how: string }>();
  for (const link of page.links) {
    const [used, made] = [group.get(link.used) ?? link.used, group.get(link.made) ?? link.made];
    links.set(`${used} ${made}`, { used, made, how: link.how });
  }
  const columns = layered([...boxes.keys()], [...links.values()]);
  const steps = stepped(columns, [...links.values()]);
  const tallest = Math.max(1, ...columns.map((column) => column.length));
  const places = placed(columns, [...steps.values()].flatMap((step) => step.pairs), tallest);
  for (const [id, box] of boxes) boxes.set(id, { ...box, ...places.get(id) });
  const ways = [...links].flatMap(([key, link]) => {
    const [from, to] = [boxes.get(link.used), boxes.get(link.made)];
    const past = (steps.get(key)?.past ?? []).flatMap((id) => places.get(id) ?? []);
    return from && to ? [{ from, to, how: link.how, past }] : [];
  });
  return { boxes: [...boxes.values()], ways, width: Math.max(1, columns.length) * ACROSS - BETWEEN, height: tallest * DOWN };
}

/** Cell -> the box that stands for it, where a site has many that hang on the same releases. */
function grouped(page: Page): Map<string, string> {
  const releasesOf = new Map<string, string[]>();
  for (const link of page.links) releasesOf.set(link.made, [...(releasesOf.get(link.made) ?? []), link.used]);
  const alike = new Map<string, string[]>();
  for (const cell of page.things.filter((thing) => thing.kind === "cell")) {
    const key = `cells ${cell.facts["site"] ?? ""} ${(releasesOf.get(cell.id) ?? []).sort().join()} ${cell.facts["runs"] ?? ""}`;
    alike.set(key, [...(alike.get(key) ?? []), cell.id]);
  }
  return new Map([...alike].flatMap(([key, cells]) => (cells.length > MOST_CELLS ? cells.map((cell): [string, string] => [cell, key]) : [])));
}

/** Digests by their first digits, other names as far as a box is wide. */
function shortened(name: string): string {
  if (/^[0-9a-f]{24,}$/.test(name)) return name.slice(0, 16);
  return name.length > LONGEST ? `${name.slice(0, LONGEST - 1)}…` : name;
}

type Link = { used: string; made: string };

function layered(ids: readonly string[], links: readonly Link[]): string[][] {
  const layer = new Map(ids.map((id) => [id, 0]));
  let changed = true;
  for (let turn = 0; changed && turn < ids.length; turn += 1) {
    changed = false;
    for (const { used, made } of links) {
      const least = (layer.get(used) ?? 0) + 1;
      if ((layer.get(made) ?? 0) < least && least < ids.length) {
        layer.set(made, least);
        changed = true;
      }
    }
  }
  for (const id of ids) {
    const after = links.filter((link) => link.used === id).map((link) => layer.get(link.made) ?? 0);
    if (!links.some((link) => link.made === id) && after.length) layer.set(id, Math.max(0, Math.min(...after) - 1));
  }
  const columns: string[][] = [];
  for (const id of ids) (columns[layer.get(id) ?? 0] ??= []).push(id);
  return Array.from(columns, (column) => column ?? []).filter((column) => column.length);
}

/** Of each link the places that it passes, one in each column between, which are added to the columns; those of one thing are shared. */
function stepped(columns: string[][], links: readonly Link[]): Map<string, { past: string[]; pairs: Link[] }> {
  const columnOf = new Map(columns.flatMap((column, across) => column.map((id): [string, number] => [id, across])));
  return new Map(links.map(({ used, made }) => {
    const past: string[] = [];
    for (let across = (columnOf.get(used) ?? 0) + 1; across < (columnOf.get(made) ?? 0); across += 1) {
      const id = `${used} past ${across}`;
      if (!columns[across]?.includes(id)) columns[across]?.push(id);
      past.push(id);
    }
    const all = [used, ...past, made];
    return [`${used} ${made}`, { past, pairs: all.slice(1).map((id, n) => ({ used: all[n] ?? "", made: id })) }];
  }));
}

function placed(columns: readonly string[][], links: readonly Link[], tallest: number): Map<string, { x: number; y: number }> {
  const places = new Map<string, { x: number; y: number }>();
  columns.forEach((column, across) => {
    const wish = (id: string) => {
      const before = links.filter((link) => link.made === id).map((link) => places.get(link.used)?.y ?? 0);
      return before.length ? before.reduce((sum, y) => sum + y, 0) / before.length : 0;
    };
    const wishes = new Map(column.map((id) => [id, across ? wish(id) : 0]));
    column.sort((one, other) => (wishes.get(one) ?? 0) - (wishes.get(other) ?? 0));
    column.forEach((id, down) => places.set(id, { x: across * ACROSS, y: (down + (tallest - column.length) / 2) * DOWN }));
  });
  return places;
}
