// The first file that a browser runs, kept small: what the page of the address will ask for is asked at once, while the rest is loaded.
import { askEarly } from "./api/early";
import { FIRST, load, pageAt } from "./app/pages";
import "./style/base.css";
import "./style/parts.css";
import "./style/pages.css";
import "./style/cell.css";
import "./style/trials.css";

const here = pageAt(location.pathname === "/" ? FIRST : location.pathname)?.page;
askEarly(["/api/me", ...(here?.early?.(new URLSearchParams(location.search)) ?? [])]);
const isLoaded = here && load(here).catch(() => {}); // the application says what to do
void Promise.all([import("./app/started"), isLoaded]).then(([{ start }]) => start());
