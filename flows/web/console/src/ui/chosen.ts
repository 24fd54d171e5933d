// Some things of a list, chosen to be shown beside each other at an address of their own.
import { useRef, useState } from "preact/hooks";
import { go } from "../app/address";
import { useKeys } from "../app/keys";

export const MOST_BESIDE = 8;

/** page: its address, which takes `of`. what: of what there are several. Key b shows them; a ninth takes the place of the first. */
export function useChosen(page: string, what: string): { chosen: readonly string[]; toggle: (id: string) => void; beside: () => void } {
  const [chosen, setChosen] = useState<readonly string[]>([]);
  const newest = useRef(chosen);
  const toggle = (id: string) => {
    newest.current = newest.current.includes(id) ? newest.current.filter((one) => one !== id) : [...newest.current, id].slice(-MOST_BESIDE);
    setChosen(newest.current);
  };
  const beside = () => {
    if (newest.current.length > 0) go(`${page}?of=${newest.current.map(encodeURIComponent).join()}`);
  };
  useKeys([{ key: "b", does: `show the chosen ${what} beside each other`, run: beside }]);
  return { chosen, toggle, beside };
}
