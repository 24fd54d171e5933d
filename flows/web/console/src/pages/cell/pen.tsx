// Who draws: one person at a time. The pen is kept while this page holds it, and returns by itself when the page is gone.
import { useEffect, useState } from "preact/hooks";
import { answer, api } from "../../api/client";
import { useKeys } from "../../app/keys";
import { useMe } from "../../app/me";

const RENEW_MS = 6000;

export interface Pen {
  isMine: boolean;
  holder: string;
  take: (over?: boolean) => Promise<void>;
  giveBack: () => Promise<void>;
  failure: string;
}

/** holder: as the stream tells. */
export function usePen(cell: string, holder: string): Pen {
  const [isMine, setMine] = useState(false);
  const [failure, setFailure] = useState("");
  const ask = async (take: boolean, over = false) => {
    const came = await answer(api.POST("/api/cells/{cell}/pen", { params: { path: { cell } }, body: { take, over } }));
    setFailure("reason" in came ? came.reason : "");
    setMine(take && "data" in came);
  };
  useEffect(() => {
    if (!isMine) return;
    const renew = setInterval(() => void ask(true), RENEW_MS);
    return () => clearInterval(renew);
  }, [isMine, cell]);
  return { isMine, holder, take: (over = false) => ask(true, over), giveBack: () => ask(false), failure };
}

export function PenBar({ pen }: { pen: Pen }) {
  const me = useMe();
  const isFree = pen.holder === "" || pen.holder === me.name; // this person's own, from before the page was loaded again, counts as free
  useKeys(!me.may("operate") ? [] : pen.isMine ? [{ key: "d", does: "give the pen back", run: () => void pen.giveBack() }] : isFree ? [{ key: "d", does: "take the pen, to draw", run: () => void pen.take() }] : []);
  if (!me.may("operate")) return <p class="quiet">{pen.holder ? `${pen.holder} has the pen.` : "No person has the pen."}</p>;
  return (
    <div class="bar" role="group" aria-label="Pen">
      {pen.isMine ? (
        <>
          <span class="good">You have the pen.</span>
          <button type="button" onClick={() => void pen.giveBack()} title="d">Give it back</button>
        </>
      ) : (
        <>
          <span>{pen.holder ? <b class="warn">{pen.holder} has the pen.</b> : "No person has the pen."}</span>
          <button type="button" class="main" onClick={() => void pen.take()} disabled={!isFree} title="d">Take the pen</button>
          {pen.holder && me.may("admin") && <button type="button" onClick={() => void pen.take(true)}>Take it over</button>}
        </>
      )}
      {pen.failure && <span class="bad" role="alert">{pen.failure}</span>}
    </div>
  );
}
