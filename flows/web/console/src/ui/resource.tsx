// One answer of the API on a page: loading, failed (with another try) or there.
import type { ComponentChildren } from "preact";
import { useCallback, useEffect, useState } from "preact/hooks";
import type { Answer } from "../api/client";
import { Failure, Loading } from "./states";

export interface Resource<T> {
  data: T | null;
  failure: string;
  again: () => void;
  /** How many answers came. */
  answers: number;
}

/** load is called again when one of `of` changes; what is there stays until the new answer is. */
export function useResource<T>(load: () => Promise<Answer<T>>, of: readonly unknown[]): Resource<T> {
  const [state, setState] = useState<{ data: T | null; failure: string; answers: number }>({ data: null, failure: "", answers: 0 });
  const [turn, setTurn] = useState(0);
  const again = useCallback(() => setTurn((now) => now + 1), []);
  useEffect(() => {
    let isCurrent = true;
    void load().then((answer) => {
      if (isCurrent) setState(({ data, answers }) => ({ ...("reason" in answer ? { data, failure: answer.reason } : { data: answer.data, failure: "" }), answers: answers + 1 }));
    });
    return () => {
      isCurrent = false;
    };
  }, [...of, turn]);
  return { ...state, again };
}

/** Loads again `everyMs` after each answer, so that slow answers are waited for. */
export function useRefreshed<T>({ again, answers }: Resource<T>, everyMs: number): void {
  useEffect(() => {
    const look = setTimeout(again, everyMs);
    return () => clearTimeout(look);
  }, [again, answers, everyMs]);
}

interface ShownProps<T> {
  of: Resource<T>;
  what: string;
  children: (data: T) => ComponentChildren;
}

export function Shown<T>({ of, what, children }: ShownProps<T>) {
  if (of.failure) return <Failure reason={of.failure} again={of.again} />;
  if (of.data === null) return <Loading what={what} />;
  return <>{children(of.data)}</>;
}
