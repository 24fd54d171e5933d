// Keys of a page: pressed anywhere but in a field. "g" then a letter opens a page of the menu.
import { useLayoutEffect, useRef } from "preact/hooks";

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

/** Whether the element that has the focus has a use of this key itself. */
function isTaken({ key, target }: KeyboardEvent): boolean {
  if (!(target instanceof HTMLElement)) return false;
  const isSwitch = /^(BUTTON|A|SUMMARY)$/.test(target.tagName) || (target instanceof HTMLInputElement && target.type === "checkbox");
  if (isSwitch) return key === " " || key === "Enter";
  return target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName);
}

// In layout effects: a key works from the moment its page is seen, not some frames after.
export function useKeys(keys: readonly Key[]): void {
  useLayoutEffect(() => {
    registered.add(keys);
    const pressed = (event: KeyboardEvent) => {
      if (event.ctrlKey || event.metaKey || event.altKey || isTaken(event)) return;
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

/** "g" then a letter, within a second. The letter is then no key of the page, which is asked after us. */
export function useJumps(jumps: Readonly<Record<string, () => void>>): void {
  const since = useRef(-Infinity); // outlives a page that is drawn again between the two keys
  useLayoutEffect(() => {
    const pressed = (event: KeyboardEvent) => {
      if (event.ctrlKey || event.metaKey || event.altKey || isTaken(event)) return;
      const jump = jumps[event.key];
      if (jump && event.timeStamp - since.current < 1000) {
        event.preventDefault();
        event.stopImmediatePropagation();
        jump();
      }
      since.current = event.key === "g" ? event.timeStamp : -Infinity;
    };
    addEventListener("keydown", pressed, true);
    return () => removeEventListener("keydown", pressed, true);
  });
}
