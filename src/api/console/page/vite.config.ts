// Builds the console into ../built, under names that stay, and writes down the digests by which a test of the server
// knows whether the built files are those of these sources.

import { createHash } from "node:crypto";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import { defineConfig, type Plugin } from "vite";

const PAGE = import.meta.dirname;
const CONSOLE = join(PAGE, "..");
/** What decides the built files; tests don't. */
const SOURCES = ["index.html", "package.json", "package-lock.json", "tsconfig.json", "vite.config.ts", "src"];
const DIGESTS = "built/digests.txt";
const SERVER = "http://127.0.0.1:8080";
const ROUTES = ["/v1", "/metrics", "/health", "/openapi.json", "/docs"];

function files(path: string): string[] {
  const entries = readdirSync(path, { withFileTypes: true });
  return entries.flatMap((entry) => {
    const inside = join(path, entry.name);
    return entry.isDirectory() ? files(inside) : [inside];
  });
}

/** One line a file, as sha256sum writes them. */
function digests(): Plugin {
  return {
    name: "digests",
    apply: "build",
    closeBundle() {
      const sources = SOURCES.flatMap((source) => (source === "src" ? files(join(PAGE, source)) : [join(PAGE, source)]));
      const built = files(join(CONSOLE, "built"));
      const names = [...sources, ...built].map((file) => relative(CONSOLE, file)).filter((name) => name !== DIGESTS);
      const lines = names.sort().map((name) => {
        const digest = createHash("sha256").update(readFileSync(join(CONSOLE, name))).digest("hex");
        return `${digest}  ${name}\n`;
      });
      writeFileSync(join(CONSOLE, DIGESTS), lines.join(""));
    },
  };
}

export default defineConfig({
  plugins: [digests()],
  build: {
    outDir: "../built",
    emptyOutDir: true,
    assetsInlineLimit: 0,
    modulePreload: false,
    license: { fileName: "console/licenses.md" },
    rolldownOptions: {
      output: {
        entryFileNames: "console/console.js",
        assetFileNames: "console/console[extname]",
      },
    },
  },
  // `npx vite` while working on the page, beside a server on karat's usual port.
  server: { proxy: Object.fromEntries(ROUTES.map((route) => [route, { target: SERVER, headers: { origin: SERVER } }])) },
});
