// A server with small models, a browser, and what every page is held to.
//
// The browser is Debian's (`apt-get install chromium`), or what CHROMIUM names: Playwright's own can't be fetched
// everywhere.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

const ROOT = join(import.meta.dirname, "../../../../..");
const AXE = readFileSync(join(import.meta.dirname, "../node_modules/axe-core/axe.min.js"), "utf8");
const DEMO = ["assistant", "grammar", "harmless", "relevance"];
const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
/** A text that a page which trusts it would run. */
export const HOSTILE = `<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>{{hacked}} \u202e\u0000`;

/** The tokenizer of the graphs in tests/graphs: a number is its own token. */
function tokenizer() {
  const vocabulary = { "[CLS]": 1, "[SEP]": 2, "[UNK]": 3, "[PAD]": 9 };
  for (let number = 10; number < 300; number += 1) vocabulary[number] = number;
  const model = { type: "WordLevel", vocab: vocabulary, unk_token: "[UNK]" };
  return JSON.stringify({ version: "1.0", added_tokens: [], pre_tokenizer: { type: "Whitespace" }, model });
}

function addGraph(folder, name, graph, manifest) {
  mkdirSync(join(folder, name));
  cpSync(join(ROOT, "tests/graphs", `${graph}.onnx`), join(folder, name, `${graph}.onnx`));
  writeFileSync(join(folder, name, "tokenizer.json"), tokenizer());
  writeFileSync(join(folder, name, "model.toml"), manifest);
}

/** The demo models, and small ones of other kinds unless the demo models are all that is wanted. */
function repository(demo) {
  const folder = mkdtempSync(join(tmpdir(), "karat-console-"));
  for (const model of DEMO) symlinkSync(join(ROOT, "models", model), join(folder, model));
  if (demo) return folder;
  const jinja = `render = { jinja = "{% for m in messages %}{{ m['content'] }} {% endfor %}" }`;
  const text = `[text]\nspecial_tokens = false\npad_token = "[PAD]"\nmax_tokens = 200\n`;
  const hostile = JSON.stringify(HOSTILE.replace("\u0000", ""));
  addGraph(folder, "steps", "steps", `description = ${hostile}\nhead = { process = { read = { two_class = { positive = 1 } }, reduction = "min" } }\n[graph]\nfile = "steps.onnx"\n${text}render = "pair"\nstep_mark = "299"\nstep_end = " 299 "\n`);
  addGraph(folder, "writer", "tiny_decoder_lm", `head = "log_probability"\n[graph]\nfile = "tiny_decoder_lm.onnx"\n${text}${jinja}\n[critique]\nrequest = "{prompt} {response}"\nmax_tokens = 4\n`);
  mkdirSync(join(folder, "broken"));
  writeFileSync(join(folder, "broken/model.toml"), `description = ${hostile}\nhead = "scalar"\n`);
  return folder;
}

async function freePort() {
  const probe = createServer();
  await new Promise((listening) => probe.listen(0, "127.0.0.1", listening));
  const { port } = probe.address();
  await new Promise((closed) => probe.close(closed));
  return port;
}

function executable() {
  const built = [process.env.KARAT_SERVER, "target/release/karat", "target/debug/karat"];
  const found = built.filter((path) => path).map((path) => join(ROOT, path)).find((path) => existsSync(path));
  assert.ok(found, "build karat first, or name it with KARAT_SERVER");
  return found;
}

/** Starts a server; returns its address and how to stop it. */
export async function serve({ demo = false } = {}) {
  const models = repository(demo);
  const address = `127.0.0.1:${await freePort()}`;
  const env = { KARAT_ONNXRUNTIME: join(ROOT, ".karat/onnxruntime/lib/libonnxruntime.so"), ...process.env };
  const flags = ["serve", "--models", models, "--listen", address, "--calibration-seconds", "0"];
  const server = spawn(executable(), flags, { env, stdio: ["ignore", "ignore", "inherit"] });
  const ended = new Promise((exit) => server.once("exit", exit));
  const url = `http://${address}`;
  for (;;) {
    const ready = await fetch(`${url}/health/ready`).then((reply) => reply.ok, () => false);
    if (ready) break;
    assert.equal(server.exitCode, null, "the server ended by itself");
    await new Promise((later) => setTimeout(later, 50));
  }
  const stop = async () => {
    server.kill("SIGTERM");
    await ended;
    rmSync(models, { recursive: true });
  };
  return { url, stop };
}

/** Debian's Chromium. */
export function browser() {
  return chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: FLAGS });
}

/** A page that fails its test on any error of a script and any breach of the policy. */
export async function open(browser, url, settings = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...settings });
  const page = await context.newPage();
  // A machine that does other things as well may be slow; what never comes is told all the same.
  page.setDefaultTimeout(120_000);
  const errors = [];
  page.on("pageerror", (error) => errors.push(error.message));
  page.on("console", (message) => message.type() === "error" && errors.push(message.text()));
  await page.goto(url);
  const close = async (expected = []) => {
    assert.equal(await page.evaluate(() => window.hacked), undefined, "a text was run");
    const unexpected = errors.filter((error) => !expected.some((part) => error.includes(part)));
    assert.deepEqual(unexpected, []);
    await context.close();
  };
  return { page, close };
}

/** Waits for what is to be shown, or fails in the words of what went wrong instead. */
export async function shown(page, locator) {
  // The place for it is always there, and empty.
  const alert = page.getByRole("alert").filter({ hasText: /./ });
  await locator.or(alert).first().waitFor();
  assert.deepEqual(await alert.allInnerTexts(), []);
}

/** No finding of axe that is serious or worse. */
export async function accessible(page) {
  // Playwright evaluates beside the page's policy, which forbids scripts to the page itself.
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => window.axe.run());
  const serious = violations.filter(({ impact }) => ["serious", "critical"].includes(impact));
  assert.deepEqual(
    serious.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(" ")}`),
    [],
  );
}
