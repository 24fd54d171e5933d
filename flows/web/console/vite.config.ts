import { type Plugin, defineConfig } from "vite";

const FIRST = /\/src\/(api\/early\.ts|app\/pages\.ts|pages\/episodes\/ask\.ts)$|vite\/preload-helper/;

// Few files, for the six connections of a browser: what runs first, what every page needs, one for each folder of pages, the plots.
function chunkOf(path: string): string | undefined {
  if (FIRST.test(path)) return "first";
  if (/\.css$|\.html$|\/src\/main\.tsx$/.test(path)) return undefined;
  if (path.includes("/uplot/") || path.endsWith("/ui/curves.tsx")) return "curves";
  return /\/src\/pages\/(\w+)\//.exec(path)?.[1] ?? "application";
}

// The browser fetches it beside what runs first, and runs it after that.
const fetchedEarly: Plugin = {
  name: "fetched-early",
  transformIndexHtml: {
    order: "post",
    handler: (_, { bundle }) =>
      Object.values(bundle ?? {})
        .filter((one) => one.name === "application" && one.type === "chunk")
        .map((one) => ({ tag: "link", attrs: { rel: "modulepreload", crossorigin: true, href: `/${one.fileName}` }, injectTo: "head" as const })),
  },
};

// Files are served by the console itself: no inline script or style may be in index.html, whose content policy refuses them.
export default defineConfig({
  plugins: [fetchedEarly],
  esbuild: { jsx: "automatic", jsxImportSource: "preact" },
  build: {
    target: "es2022",
    modulePreload: { polyfill: false },
    assetsInlineLimit: 0,
    emptyOutDir: true,
    reportCompressedSize: false,
    rollupOptions: { output: { manualChunks: chunkOf } },
  },
});
