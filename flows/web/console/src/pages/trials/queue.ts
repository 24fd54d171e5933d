// What a person said of trials, kept in this browser until the console has it. Each carries a key, so that one that is sent twice counts once.
// A start or a stop is never kept: it would move or stop the robot at another moment.
import { useCallback, useEffect, useState } from "preact/hooks";
import { api } from "../../api/client";
import type { components } from "../../api/schema";

export type Said = components["schemas"]["TrialAnswer"] & { study: string };

const PLACE = "actwright:trials";
const AGAIN_MS = 2000;
export const PATIENCE_MS = 5000;

function read(): Said[] {
  try {
    const kept: unknown = JSON.parse(localStorage.getItem(PLACE) ?? "[]");
    return Array.isArray(kept) ? (kept as Said[]) : [];
  } catch {
    return [];
  }
}

function write(kept: readonly Said[]): void {
  localStorage.setItem(PLACE, JSON.stringify(kept));
}

/** 32 hex digits by chance; `randomUUID` is not there on a page without TLS. */
export function newKey(): string {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

type Came = { is: "taken" } | { is: "refused"; reason: string } | { is: "kept"; reason: string };

/** Taken and refused answers leave the queue; all others are sent again. */
async function send({ study, number, key, success, progress }: Said): Promise<Came> {
  try {
    const { error, response } = await api.POST("/api/trials/{study}/answer", {
      params: { path: { study } },
      body: { number, key, success, progress },
      signal: AbortSignal.timeout(PATIENCE_MS),
    });
    if (response.ok) return { is: "taken" };
    const reason = error?.reason ?? `the console answered with status ${response.status}`;
    return [400, 404, 409].includes(response.status) ? { is: "refused", reason } : { is: "kept", reason };
  } catch {
    return { is: "kept", reason: "" };
  }
}

export interface Queue {
  kept: readonly Said[];
  /** Why an answer did not count, or is not taken yet; "" while there is nothing to tell. */
  told: string;
  say: (said: Said) => void;
}

export function useQueue(): Queue {
  const [kept, setKept] = useState<readonly Said[]>(read);
  const [told, setTold] = useState("");
  const [turn, setTurn] = useState(0);
  const first = kept[0];
  useEffect(() => {
    if (!first) return;
    let isCurrent = true;
    const again = () => {
      if (isCurrent) setTurn((now) => now + 1);
    };
    void send(first).then((came) => {
      if (!isCurrent) return;
      setTold(came.is === "taken" ? "" : came.is === "refused" ? `Trial ${first.number}: ${came.reason}` : came.reason);
      if (came.is === "kept") {
        setTimeout(again, AGAIN_MS);
        return;
      }
      const left = read().filter((one) => one.key !== first.key);
      write(left);
      setKept(left);
    });
    addEventListener("online", again);
    return () => {
      isCurrent = false;
      removeEventListener("online", again);
    };
  }, [first?.key, turn]);
  const say = useCallback((said: Said) => {
    const all = [...read(), said];
    write(all);
    setKept(all);
  }, []);
  return { kept, told, say };
}
