// The rows of the table in parts: only what is in sight is fetched, and what was fetched stays until the question changes.
import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { answer, api } from "../../api/client";
import type { components } from "../../api/schema";
import { type Ask, PART, partQuery } from "./ask";

export type EpisodeLine = components["schemas"]["EpisodeLine"];
export type Row = EpisodeLine | { pending: number };

interface Found {
  total: number | null;
  rows: readonly Row[];
  failure: string;
  seen: (first: number, end: number) => void;
  again: () => void;
}

export function useEpisodes(ask: Ask): Found {
  const [turn, setTurn] = useState(0);
  const key = `${JSON.stringify(ask)} ${turn}`;
  const current = useRef(key);
  const asked = useRef(new Set<number>());
  const [state, setState] = useState<{ total: number | null; rows: readonly Row[]; failure: string }>({ total: null, rows: [], failure: "" });
  const fetchPart = useCallback((part: number) => {
    if (asked.current.has(part)) return;
    asked.current.add(part);
    const query = partQuery(ask, part) as never;
    void answer(api.GET("/api/episodes", { params: { query } })).then((found) => {
      if (current.current !== key) return;
      if ("reason" in found) return setState((before) => ({ ...before, failure: found.reason }));
      setState((before) => {
        const isSame = before.total === found.data.total && part > 0;
        const rows: Row[] = isSame ? [...before.rows] : Array.from({ length: found.data.total }, (_, pending) => ({ pending }));
        found.data.rows.forEach((row, place) => (rows[found.data.offset + place] = row));
        return { total: found.data.total, rows, failure: "" };
      });
    });
  }, [key]);
  useEffect(() => {
    current.current = key;
    asked.current = new Set();
    fetchPart(0);
  }, [key, fetchPart]);
  const seen = useCallback((first: number, end: number) => {
    for (let part = Math.floor(first / PART); part <= Math.floor(Math.max(end - 1, 0) / PART); part += 1) fetchPart(part);
  }, [fetchPart]);
  return { ...state, seen, again: () => setTurn((now) => now + 1) };
}
