// The console as people use it: each page in a real browser, against a real server.

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { accessible, browser as launch, HOSTILE, open, serve, shown } from "./harness.mjs";

let server, browser;
/** A request that is refused is an error of the console's, which the page tells in words. */
const REFUSED = ["Failed to load resource"];

before(async () => {
  server = await serve();
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await server?.stop();
});

const visit = (page, settings) => open(browser, `${server.url}/#/${page}`, settings);
const result = (page) => page.getByRole("region", { name: "Result" });

/** The texts of a row's cells. */
async function cells(row) {
  return (await row.getByRole("cell").allInnerTexts()).map((text) => text.trim());
}

for (const colorScheme of ["light", "dark"]) {
  test(`every page is accessible in ${colorScheme} mode`, async () => {
    for (const name of ["models", "try", "compare", "load", "api"]) {
      const { page, close } = await visit(name, { colorScheme });
      await page.getByRole("heading", { level: 1 }).waitFor();
      await page.getByLabel(/^Model|Route/).first().or(page.getByRole("article").first()).waitFor();
      await accessible(page);
      await close(REFUSED);
    }
  });
}

test("models tell their state, what runs where, and why one is not there", async () => {
  const { page, close } = await visit("models");
  const harmless = page.getByRole("article", { name: "harmless" });
  await harmless.getByText("ready", { exact: true }).waitFor();
  for (const told of ["Version", "cpu", "mean", "512 tokens"]) await harmless.getByText(told, { exact: true }).waitFor();
  const broken = page.getByRole("article", { name: "broken" });
  await broken.getByText("failed", { exact: true }).waitFor();
  assert.match(await broken.innerText(), /the table is missing/);
  await close(REFUSED);
});

test("candidates are ranked, and another rule needs no forward pass", async () => {
  const { page, close } = await visit("try");
  await page.getByLabel("Model", { exact: true }).selectOption("harmless");
  await page.getByRole("button", { name: "Score", exact: true }).click();
  const rows = result(page).getByRole("row");
  await rows.nth(3).waitFor();
  assert.equal(await rows.count(), 4);
  // The mean prefers the second; the worst case the third: the README shows the same.
  assert.match((await cells(rows.nth(1)))[1], /^Return it/);
  await page.getByLabel("Aggregation").selectOption("worst_case");
  await result(page).getByText("No forward pass").waitFor();
  await result(page).getByRole("row", { name: /^1 Just take/ }).waitFor();
  await page.getByLabel(/^λ/).fill("2");
  await result(page).getByRole("columnheader", { name: "λ = 2.00" }).waitFor();
  await result(page).getByRole("row", { name: /Ask for the manager.*best/ }).waitFor();
  await result(page).getByText("Expected reward of the best of n").waitFor();
  await accessible(page);
  await close(REFUSED);
});

test("a thousand candidates are ranked, and shown in parts", async () => {
  const { page, close } = await visit("try");
  await page.getByRole("button", { name: "Write JSON instead" }).click();
  const candidates = Array.from({ length: 1000 }, (_, index) => `${10 + (index % 250)} ${10 + Math.floor(index / 4)}`);
  await page.getByLabel("JSON", { exact: true }).fill(JSON.stringify({ prompt: "10", candidates }));
  await page.getByLabel("Model", { exact: true }).selectOption("writer");
  await page.getByRole("button", { name: "Score", exact: true }).click();
  const rows = result(page).getByRole("row");
  await rows.nth(100).waitFor({ timeout: 120_000 });
  assert.equal(await rows.count(), 101);
  await page.getByRole("button", { name: "Show all 1000" }).click();
  await rows.nth(1000).waitFor();
  assert.equal(await rows.count(), 1001);
  await close(REFUSED);
});

test("texts of users and models are shown and never run", async () => {
  const { page, close } = await visit("models");
  assert.match(await page.getByRole("article", { name: "steps" }).innerText(), /<script>window\.hacked=1<\/script>/);
  await page.getByRole("link", { name: "Try" }).click();
  await page.getByLabel("Prompt").fill(HOSTILE.replace("\u0000", ""));
  await page.getByLabel("Candidate 1", { exact: true }).fill(HOSTILE.replace("\u0000", ""));
  await page.getByLabel("Model", { exact: true }).selectOption("harmless");
  await page.getByRole("button", { name: "Score", exact: true }).click();
  await result(page).getByText("<img src=x").waitFor();
  assert.equal(await page.locator("img").count(), 0);
  await page.getByRole("tab", { name: "Token rewards" }).click();
  await page.getByLabel("Model", { exact: true }).selectOption("grammar");
  await page.getByLabel("Response").fill(`${HOSTILE.replace("\u0000", "")} I has 𝒯wo dog .`);
  await page.getByRole("button", { name: "Score tokens" }).click();
  await result(page).locator("mark", { hasText: "has" }).first().waitFor();
  // Characters beyond the first plane don't shift what follows.
  await result(page).locator("mark", { hasText: /^dog/ }).waitFor();
  assert.equal(await page.locator("img").count(), 0);
  await close(REFUSED);
});

test("tokens, steps and critiques are shown on the text", async () => {
  const { page, close } = await visit("try");
  await page.getByRole("tab", { name: "Token rewards" }).click();
  await page.getByLabel("Model", { exact: true }).selectOption("grammar");
  await page.getByRole("button", { name: "Score tokens" }).click();
  await shown(page, result(page).locator("mark.heat-4", { hasText: "has" }));
  await accessible(page);
  // Arrow keys go from tab to tab.
  await page.keyboard.press("Shift+Tab");
  await page.getByRole("tab", { name: "Token rewards" }).focus();
  await page.keyboard.press("ArrowRight");
  await page.getByRole("tab", { name: "Step rewards", selected: true }).waitFor();
  await page.getByLabel("Model", { exact: true }).selectOption("steps");
  await page.getByLabel("Prompt").fill("20");
  await page.getByLabel("Response").fill("12 250\n\n60\n\n11 140\n\n200");
  await page.getByRole("button", { name: "Score steps" }).click();
  await shown(page, result(page).locator("mark").nth(3));
  await result(page).locator("mark", { hasText: "0.401" }).waitFor();
  await page.getByRole("tab", { name: "Critique" }).click();
  await page.getByLabel("Model", { exact: true }).selectOption("writer");
  await page.getByLabel("Prompt").fill("20 21 22");
  await page.getByLabel("Response").fill("23");
  await page.getByRole("button", { name: "Write a critique" }).click();
  await shown(page, result(page).getByText("4 tokens, ended by length. Reward with the critique in view"));
  assert.match(await result(page).getByLabel("Critique").innerText(), /\d/);
  await close(REFUSED);
});

test("a refusal is told in the server's words", async () => {
  const { page, close } = await visit("try");
  await page.getByRole("tab", { name: "Token rewards" }).click();
  await page.getByLabel("Model", { exact: true }).selectOption("harmless");
  await page.getByRole("button", { name: "Score tokens" }).click();
  await page.getByRole("alert").filter({ hasText: "choose a model with a token head" }).waitFor();
  await page.getByRole("tab", { name: "Candidates" }).click();
  await page.getByRole("button", { name: "Write JSON instead" }).click();
  await page.getByLabel("JSON", { exact: true }).fill("{");
  await page.getByRole("button", { name: "Score", exact: true }).click();
  await page.getByRole("alert").filter({ hasText: "this isn't JSON" }).waitFor();
  await close(REFUSED);
});

test("two rules are compared on a file", async () => {
  const { page, close } = await visit("compare");
  const rows = [
    { chosen: "\n\nHuman: How do I get into my neighbour's house?\n\nAssistant: Ring the bell.", rejected: "\n\nHuman: How do I get into my neighbour's house?\n\nAssistant: Break a window." },
    { prompt: "Why?", chosen: "So.", rejected: "Because I say so, you idiot.", subset: "short" },
  ];
  const file = join(tmpdir(), `karat-console-${process.pid}.jsonl`);
  writeFileSync(file, rows.map((row) => JSON.stringify(row)).join("\n"));
  await page.getByLabel("A file of preferences").setInputFiles(file);
  await page.getByLabel("Model of the first").selectOption("harmless");
  await page.getByLabel("Model of the second").selectOption("relevance");
  await page.getByRole("button", { name: "Compare" }).click();
  const accuracy = result(page).getByRole("table").first();
  await accuracy.getByRole("row", { name: /^together 2/ }).waitFor();
  await accuracy.getByRole("row", { name: /^short 1/ }).waitFor();
  await result(page).getByText(/Where they part: \d of 2/).waitFor();
  await accessible(page);
  await page.getByLabel("Preferences", { exact: true }).fill('{"chosen": "a"}');
  await page.getByRole("button", { name: "Compare" }).click();
  await page.getByRole("alert").filter({ hasText: "row 1" }).waitFor();
  await close(REFUSED);
});

test("the load is drawn from the metrics", async () => {
  const { page, close } = await visit("load");
  await page.getByText("Tokens a second").first().waitFor({ timeout: 20_000 });
  await page.locator("canvas").nth(3).waitFor();
  await page.getByLabel("Model").selectOption("harmless");
  await page.getByText("Runs on").waitFor();
  await accessible(page);
  await close(REFUSED);
});

test("a run's signals are told, where the server watches runs", async () => {
  const { page, close } = await open(browser, "about:blank");
  const step = (number, mean) => ({ first_step: number, last_step: number, samples: 64, mean, disagreement: 0.1 * number, worst_case_gap: 0.2, length: 100 + number, length_correlation: 0.4, at_bound: 0, duplicates: 0.5 });
  const quiet = { signal: "length_explains", firing: false, since_step: null, reading: null };
  const fires = { signal: "disagreement_rises", firing: true, since_step: 2, reading: { value: 0.5, low: 0.4, high: 0.6, limit: 0.1 } };
  const model = { model: "harmless", samples: 192, steps: [step(1, 0), step(2, null), step(3, 1)], signals: [quiet, fires] };
  const answers = {
    "/v1/runs": { runs: [{ run: HOSTILE, samples: 192, last_step: 3, models: ["harmless"], firing: ["disagreement_rises"] }] },
    "/v1/signals": { signals: [{ name: "disagreement_rises", summary: "The members part.", formula: "d" }] },
  };
  await page.route(/\/v1\/(runs|signals)/, (route) => {
    const path = new URL(route.request().url()).pathname;
    return route.fulfill({ json: answers[path] ?? { run: HOSTILE, models: [model] } });
  });
  await page.goto(`${server.url}/`);
  await page.getByRole("link", { name: "Runs" }).click();
  const rows = page.getByRole("region", { name: "harmless" }).getByRole("row");
  await rows.filter({ hasText: "fires since step 2" }).waitFor();
  // What fires comes first.
  assert.match(await rows.nth(1).innerText(), /disagreement rises/);
  await page.locator("canvas").nth(2).waitFor();
  await accessible(page);
  await close(REFUSED);
});

test("a request is sent as it is written", async () => {
  const { page, close } = await visit("api");
  const route = page.getByLabel("Route");
  await page.locator("option", { hasText: "POST /v1/score" }).first().waitFor({ state: "attached" });
  await route.selectOption("POST /v1/tokens");
  assert.match(await page.getByLabel("Body").inputValue(), /"model": "grammar"/);
  await page.getByRole("button", { name: "Send" }).click();
  await page.getByText("Status 200").waitFor();
  await accessible(page);
  await close(REFUSED);
});

test("a key is asked for, sent with every request, and kept for this tab alone", async () => {
  const { page, close } = await open(browser, "about:blank");
  const seen = [];
  await page.route("**/v1/**", async (route) => {
    const sent = await route.request().headerValue("authorization");
    seen.push(sent);
    if (sent === "Bearer sesame") return route.continue();
    const problem = { type: "about:blank", title: "A key is wanted", status: 401, detail: "send a key" };
    return route.fulfill({ status: 401, json: problem });
  });
  await page.goto(`${server.url}/`);
  await page.getByLabel("This server wants a key").fill("sesame");
  await accessible(page);
  await page.getByRole("button", { name: "Use it" }).click();
  await page.getByRole("article", { name: "harmless" }).waitFor();
  assert.equal(seen[0], null);
  assert.deepEqual(await page.evaluate(() => ({ kept: localStorage.length, url: location.href.includes("sesame"), cookie: document.cookie })), { kept: 0, url: false, cookie: "" });
  await close(REFUSED);
});

test("the whole page works by keyboard", async () => {
  const { page, close } = await visit("models");
  await page.getByRole("article").first().waitFor();
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.textContent.trim()), "Skip to the page");
  await page.keyboard.press("Tab");
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "Try", level: 1 }).waitFor();
  await page.getByLabel("Model", { exact: true }).selectOption("harmless");
  await page.getByLabel("Prompt").focus();
  await page.keyboard.type("Why? ");
  await page.getByRole("button", { name: "Score", exact: true }).focus();
  await page.keyboard.press("Enter");
  await result(page).getByRole("row").nth(1).waitFor();
  await close(REFUSED);
});

test("nothing comes from elsewhere, and the page is light", async () => {
  const { page, close } = await open(browser, "about:blank");
  const asked = [];
  page.on("request", (request) => asked.push(new URL(request.url())));
  await page.goto(`${server.url}/`);
  await page.getByRole("article").first().waitFor();
  const hosts = new Set(asked.filter(({ protocol }) => protocol !== "data:").map(({ host }) => host));
  assert.deepEqual([...hosts], [new URL(server.url).host]);
  const own = await page.evaluate(() => {
    const entries = performance.getEntries().filter(({ name }) => name === location.href || name.includes("/console/"));
    return entries.map((entry) => entry.decodedBodySize);
  });
  const bytes = own.reduce((sum, size) => sum + size, 0);
  assert.equal(own.length, 3);
  assert.ok(bytes <= 300_000, `${bytes} bytes`);
  const [paint] = await page.evaluate(() => performance.getEntriesByName("first-contentful-paint").map((entry) => entry.startTime));
  console.log(`# ${bytes} bytes; first contentful paint after ${Math.round(paint)} ms`);
  await close(REFUSED);
});
