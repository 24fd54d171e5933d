// What is stated carries a name: who has none yet, on a console without tokens, gives one first.
import type { ComponentChildren } from "preact";
import { signIn } from "../api/client";
import { useMe } from "../app/me";

export function Named({ children }: { children: ComponentChildren }) {
  const me = useMe();
  if (!me.may("operate")) return null;
  if (me.has_session) return <>{children}</>;
  const submit = async (event: SubmitEvent) => {
    event.preventDefault();
    await signIn({ name: String(new FormData(event.currentTarget as HTMLFormElement).get("name") ?? "") });
    me.again();
  };
  return (
    <form class="bar" onSubmit={submit}>
      <label>Your name, which stands beside what you state<input name="name" autocomplete="name" required maxLength={80} /></label>
      <button type="submit" class="main">Continue</button>
    </form>
  );
}
