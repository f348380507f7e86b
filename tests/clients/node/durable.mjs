// A subscriber of one channel and one pattern, as ioredis or node-redis programs are written; its connection's name begins
// with `durable:`. Tells each message as a line of JSON, and its subscription by a line of its own.
import Redis from "ioredis";
import { createClient } from "redis";

const [library, port] = process.argv.slice(2);
const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

if (library === "ioredis") {
  const client = new Redis({ host: "127.0.0.1", port: Number(port), connectionName: "durable:ioredis" });
  client.on("error", () => {}); // it connects again by itself
  client.on("message", (channel, text) => say([channel, text]));
  client.on("pmessage", (_, channel, text) => say([channel, text]));
  await client.subscribe("c");
  await client.psubscribe("d.*");
} else {
  const client = createClient({ url: `redis://127.0.0.1:${port}`, name: "durable:node-redis" });
  client.on("error", () => {});
  await client.connect();
  await client.subscribe("c", (text, channel) => say([channel, text]));
  await client.pSubscribe("d.*", (text, channel) => say([channel, text]));
}
say("subscribed");
