import { defineConfig } from "vite";

// Files are served by the console itself: no inline script or style may be in index.html, whose content policy refuses them.
export default defineConfig({
  esbuild: { jsx: "automatic", jsxImportSource: "preact" },
  build: { target: "es2022", modulePreload: false, assetsInlineLimit: 0, emptyOutDir: true, reportCompressedSize: false },
});
