// The whole application: who is signed in, the menu, the page of the address.
import { useEffect, useState } from "preact/hooks";
import { api } from "../api/client";
import { Loading } from "../ui/states";
import { remember, remembered } from "./kept";
import { type Me, MeContext, type SignedIn } from "./me";
import { Shell } from "./shell";
import { SignIn } from "./sign_in";

export function Console() {
  const [me, setMe] = useState<SignedIn | null>(null);
  const [turn, setTurn] = useState(0);
  const again = () => setTurn((now) => now + 1);
  useEffect(() => {
    void api.GET("/api/me").then(({ data, response }) => {
      const known = data ?? { name: "", role: "", has_session: false, needs_token: response?.status === 401 };
      setMe(known);
      remember("me", known);
    }, () => setMe((now) => now ?? remembered<SignedIn>("me"))); // without an answer what was known stands; the console decides on each order
  }, [turn]);
  if (me === null) return <Loading what="the console" />;
  if (!me.role) return <SignIn needsToken={me.needs_token} done={again} />;
  const value: Me = { ...me, again };
  return (
    <MeContext.Provider value={value}>
      <Shell />
    </MeContext.Provider>
  );
}
