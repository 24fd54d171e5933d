// Who uses this page, and what that person may do. Buttons that a role does not allow are not shown.
import { createContext } from "preact";
import { useContext } from "preact/hooks";
import type { components } from "../api/schema";

export type SignedIn = components["schemas"]["SignedIn"];

const ORDER = ["observe", "operate", "admin"];

export interface Me extends SignedIn {
  again: () => void;
}

export const MeContext = createContext<Me>({ name: "", role: "", has_session: false, needs_token: false, again: () => {} });

export function useMe(): Me & { may: (role: "observe" | "operate" | "admin") => boolean } {
  const me = useContext(MeContext);
  return { ...me, may: (role) => ORDER.indexOf(me.role) >= ORDER.indexOf(role) };
}
