// A value that changes often, for a part of the page that is costly to draw.
import { useEffect, useRef, useState } from "preact/hooks";

/** The value as it was at most `everyMs` ago. */
export function useSeldom<T>(value: T, everyMs: number): T {
  const newest = useRef(value);
  const [shown, setShown] = useState(value);
  newest.current = value;
  useEffect(() => {
    const look = setInterval(() => setShown(newest.current), everyMs);
    return () => clearInterval(look);
  }, [everyMs]);
  return shown;
}
