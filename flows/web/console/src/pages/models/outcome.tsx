const TONES: Readonly<Record<string, string>> = { promote: "good", holds: "good", reject: "bad", fails: "bad", invalid: "bad" };

/** An outcome of the gate, or how one of its criteria stands: told by the word, and by colour. */
export function Outcome({ outcome }: { outcome: string }) {
  return <span class={TONES[outcome] ?? "warn"}>{outcome}</span>;
}
