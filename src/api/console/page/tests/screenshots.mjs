// Takes the documentation's pictures of the console: node tests/screenshots.mjs

import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { browser as launch, open, serve } from "./harness.mjs";

const FOLDER = join(import.meta.dirname, "../../../../../docs/console");
const server = await serve({ demo: true });
const browser = await launch();

async function picture(name, show, height = 620) {
  const { page, close } = await open(browser, `${server.url}/#/${name === "tokens" ? "try" : name}`, { viewport: { width: 1160, height } });
  await show(page);
  await page.screenshot({ path: join(FOLDER, `${name}.png`) });
  await close(["Failed to load resource"]);
}

mkdirSync(FOLDER, { recursive: true });
await picture("models", (page) => page.getByRole("article").nth(3).waitFor());
await picture("try", async (page) => {
  await page.getByLabel("Model", { exact: true }).selectOption("harmless");
  await page.getByLabel(/^λ/).fill("2");
  await page.getByRole("button", { name: "Score", exact: true }).click();
  await page.locator("canvas").waitFor();
  await page.evaluate(() => scrollTo(0, 0));
}, 760);
await picture("tokens", async (page) => {
  await page.getByRole("tab", { name: "Token rewards" }).click();
  await page.getByLabel("Model", { exact: true }).selectOption("grammar");
  await page.getByRole("button", { name: "Score tokens" }).click();
  await page.locator("mark").first().waitFor();
}, 480);
await picture("compare", async (page) => {
  await page.getByLabel("Model of the first").selectOption("harmless");
  await page.getByLabel("Model of the second").selectOption("relevance");
  await page.getByLabel("Aggregation of the second").selectOption("");
  await page.getByRole("button", { name: "Compare" }).click();
  await page.getByText(/Where they part/).scrollIntoViewIfNeeded();
}, 760);
await picture("load", async (page) => {
  let on = true;
  const body = (text) => JSON.stringify({ model: "harmless", inputs: Array.from({ length: 16 }, (_, index) => ({ prompt: "Why?", response: `${text} ${index} ${"and so on ".repeat(index)}` })) });
  const traffic = Array.from({ length: 6 }, async (_, client) => {
    for (let turn = 0; on; turn += 1) await fetch(`${server.url}/v1/score`, { method: "POST", body: body(`Because ${client} ${turn % 40}`) });
  });
  await new Promise((later) => setTimeout(later, 45_000));
  on = false;
  await Promise.all(traffic);
}, 900);
await browser.close();
await server.stop();
