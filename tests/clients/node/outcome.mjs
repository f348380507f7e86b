// What each application here does with its servers: it is told their URLs, and prints what came of it as JSON.
// The applications know nothing of Riverbus. Of Redis the three URLs are one and the same, of Riverbus three nodes.
import { randomBytes } from "node:crypto";
import { setTimeout as after } from "node:timers/promises";

const given = process.env.CLIENT_URLS.split(",");
export const URLS = [0, 1, 2].map((i) => given[i % given.length]);
const run = randomBytes(4).toString("hex");

export const named = (name) => `${name}-${run}`;

export async function until(condition) {
  while (!(await condition())) await after(10);
}

// A value as JSON has it, without the run's names.
const plain = (value) => JSON.parse(JSON.stringify(value).replaceAll(`-${run}`, ""));

export async function tell(story) {
  const timer = setTimeout(() => {
    console.error("no outcome after 30 s");
    process.exit(2);
  }, 30_000);
  const outcome = plain(await story());
  clearTimeout(timer);
  process.stdout.write(JSON.stringify(outcome), () => process.exit(0));
}
