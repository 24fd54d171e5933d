// What a page shows while it has nothing else to show.
import type { ComponentChildren } from "preact";

export function Loading({ what }: { what: string }) {
  return <p class="state" role="status">Loading {what} ...</p>;
}

/** reason: a sentence of the console, which says what to do. */
export function Failure({ reason, again }: { reason: string; again?: () => void }) {
  return (
    <div class="state failure" role="alert">
      <p>{reason}</p>
      {again && <button type="button" onClick={again}>Try again</button>}
    </div>
  );
}

/** children: how to get something here. */
export function Empty({ what, children }: { what: string; children?: ComponentChildren }) {
  return (
    <div class="state">
      <p>{what}</p>
      {children && <p class="quiet">{children}</p>}
    </div>
  );
}

export function Missing({ what }: { what: string }) {
  return <Failure reason={`There is no page ${what}. Choose one of the menu.`} />;
}
