// Keys of a page: pressed anywhere but in a field. "g" then a letter opens a page of the menu.
import { useEffect } from "preact/hooks";

export interface Key {
  key: string;
  does: string;
  run: () => void;
}

const registered = new Set<readonly Key[]>();

/** All keys that work now, for the help. */
export function activeKeys(): readonly Key[] {
  return [...registered].flat();
}

function isField(target: EventTarget | null): boolean {
  if (!(target instanceof HTMLElement)) return false;
  return target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName);
}

export function useKeys(keys: readonly Key[]): void {
  useEffect(() => {
    registered.add(keys);
    const pressed = (event: KeyboardEvent) => {
      if (event.ctrlKey || event.metaKey || event.altKey || isField(event.target)) return;
      const found = keys.find((one) => one.key === event.key);
      if (!found) return;
      event.preventDefault();
      found.run();
    };
    addEventListener("keydown", pressed);
    return () => {
      registered.delete(keys);
      removeEventListener("keydown", pressed);
    };
  });
}

/** "g" then a letter, within a second. */
export function useJumps(jumps: Readonly<Record<string, () => void>>): void {
  useEffect(() => {
    let since = -Infinity;
    const pressed = (event: KeyboardEvent) => {
      if (event.ctrlKey || event.metaKey || event.altKey || isField(event.target)) return;
      const jump = jumps[event.key];
      if (jump && event.timeStamp - since < 1000) {
        event.preventDefault();
        jump();
      }
      since = event.key === "g" ? event.timeStamp : -Infinity;
    };
    addEventListener("keydown", pressed);
    return () => removeEventListener("keydown", pressed);
  });
}
