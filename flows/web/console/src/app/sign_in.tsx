// Signing in: a token where the console needs one, else a name by which others know the person.
import { useState } from "preact/hooks";
import { signIn } from "../api/client";

interface SignInProps {
  needsToken: boolean;
  done: () => void;
}

export function SignIn({ needsToken, done }: SignInProps) {
  const [failure, setFailure] = useState("");
  const submit = async (event: SubmitEvent) => {
    event.preventDefault();
    const given = String(new FormData(event.currentTarget as HTMLFormElement).get("given") ?? "");
    const reason = await signIn(needsToken ? { token: given } : { name: given });
    if (reason) setFailure(reason);
    else done();
  };
  return (
    <form class="sign-in" onSubmit={submit}>
      <h1>{needsToken ? "Sign in" : "Your name"}</h1>
      <p>{needsToken ? "Show the token that an administrator gave you." : "Others see it where you draw or decide; it is written into the logs."}</p>
      <label>
        {needsToken ? "Token" : "Name"}
        {needsToken ? (
          <input name="given" type="password" autocomplete="current-password" required maxLength={4000} />
        ) : (
          <input name="given" type="text" autocomplete="name" required maxLength={80} />
        )}
      </label>
      {failure && <p role="alert" class="failure">{failure}</p>}
      <button type="submit" class="main">{needsToken ? "Sign in" : "Continue"}</button>
    </form>
  );
}
