import type { ComponentChildren } from "preact";
import { go } from "../app/address";

interface LinkProps {
  to: string;
  current?: boolean;
  children: ComponentChildren;
}

/** A link inside the application; opened in a new tab it works as any other. */
export function Link({ to, current = false, children }: LinkProps) {
  const follow = (event: MouseEvent) => {
    if (event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    go(to);
  };
  return <a href={ours(to)} onClick={follow} aria-current={current ? "page" : undefined}>{children}</a>;
}

/** An address of this application; one that data made into another leads to the first page. */
function ours(to: string): string {
  return /^\/(?![/\\])/.test(to) ? to : "/";
}
