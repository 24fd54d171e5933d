// The application, drawn into the document.
import { render } from "preact";
import { Console } from "./console";

export function start(): void {
  const root = document.getElementById("root");
  if (root) render(<Console />, root);
}
