// The frame of every page: menu, who is signed in, theme, keys.
import { useEffect, useRef, useState } from "preact/hooks";
import { signOut } from "../api/client";
import { go, useAddress } from "./address";
import { type Key, activeKeys, useJumps, useKeys } from "./keys";
import { useMe } from "./me";
import { useLoaded, useOthersLoaded } from "./loaded";
import { FIRST, PAGES, pageAt } from "./pages";
import { Link } from "../ui/link";
import { Failure, Loading, Missing } from "../ui/states";

const MENU = PAGES.filter((page) => page.letter);
const THEMES = ["as the system", "light", "dark"] as const;

export function Shell() {
  const address = useAddress();
  const help = useRef<HTMLDialogElement>(null);
  const [theme, nextTheme] = useTheme();
  const path = address.pathname;
  useOthersLoaded();
  const here = MENU.filter((page) => path === page.pattern || path.startsWith(`${page.pattern}/`)).at(-1);
  useEffect(() => {
    if (path === "/") go(FIRST, true);
  }, [path]);
  useJumps(Object.fromEntries(MENU.map((page) => [page.letter ?? "", () => go(page.pattern)])));
  useKeys([
    { key: "?", does: "show the keys", run: () => help.current?.showModal() },
    { key: "t", does: "change between light and dark", run: nextTheme },
  ]);
  return (
    <>
      <a class="skip" href="#content">To the content</a>
      <header class="top">
        <nav aria-label="Pages">
          {MENU.map((page) => (
            <Link key={page.pattern} to={page.pattern} current={page === here}>
              {page.title}
            </Link>
          ))}
        </nav>
        <Person />
        <button type="button" onClick={nextTheme} title="t">Theme: {theme}</button>
        <button type="button" onClick={() => help.current?.showModal()} title="?">Keys</button>
      </header>
      <main id="content" tabIndex={-1}>
        <Content path={path} />
      </main>
      <Help dialog={help} />
    </>
  );
}

function Content({ path }: { path: string }) {
  const found = pageAt(path);
  const loaded = useLoaded(found?.page);
  useOthersLoaded();
  if (!found) return path === "/" ? null : <Missing what={path} />;
  document.title = `${Object.values(found.parts).join("/") || found.page.title} - Actwright`;
  if (loaded.show) return <loaded.show parts={found.parts} />;
  if (loaded.isFailed) return <Failure reason={`${found.page.title} cannot be loaded: the console does not answer, or was replaced by another version.`} again={() => location.reload()} />;
  return <Loading what={found.page.title} />;
}

function Person() {
  const me = useMe();
  if (!me.has_session) return <span class="quiet">{me.name}</span>;
  const leave = async () => {
    await signOut();
    me.again();
  };
  return (
    <span class="person">
      {me.name} <span class="quiet">({me.role})</span> <button type="button" onClick={() => void leave()}>Sign out</button>
    </span>
  );
}

function Help({ dialog }: { dialog: { current: HTMLDialogElement | null } }) {
  const [keys, setKeys] = useState<readonly Key[]>([]);
  useEffect(() => {
    const shown = dialog.current;
    if (!shown) return;
    const opened = () => setKeys(activeKeys());
    shown.addEventListener("toggle", opened);
    return () => shown.removeEventListener("toggle", opened);
  }, [dialog]);
  return (
    <dialog ref={dialog} aria-labelledby="keys-title">
      <h2 id="keys-title">Keys</h2>
      <dl class="keys">
        {keys.map((one) => [<dt key={`${one.key}-k`}><kbd>{one.key}</kbd></dt>, <dd key={`${one.key}-d`}>{one.does}</dd>])}
        {MENU.map((page) => [<dt key={`${page.letter}-k`}><kbd>g</kbd> <kbd>{page.letter}</kbd></dt>, <dd key={`${page.letter}-d`}>open {page.title}</dd>])}
      </dl>
      <form method="dialog"><button>Close</button></form>
    </dialog>
  );
}

function useTheme(): [string, () => void] {
  const [theme, setTheme] = useState<string>(() => localStorage.getItem("theme") ?? THEMES[0]);
  useEffect(() => {
    localStorage.setItem("theme", theme);
    document.documentElement.dataset["theme"] = theme;
  }, [theme]);
  return [theme, () => setTheme(THEMES[(THEMES.indexOf(theme as (typeof THEMES)[number]) + 1) % THEMES.length] ?? THEMES[0])];
}
