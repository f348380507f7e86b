// ioredis: keys, small strings with expiry, WATCH, and consumer groups.
import Redis from "ioredis";
import { URLS, named, tell } from "./outcome.mjs";

await tell(async () => {
  const outcome = {};
  const [one, two] = URLS.map((url) => new Redis(url));
  const key = named("key");
  outcome.strings = [
    await one.set(key, "v", "PX", 60_000),
    await two.get(key),
    await two.set(key, "w", "NX"),
    await one.set(key, "w", "XX", "GET"),
    (await two.pttl(key)) > 0,
    await one.exists(key, named("none")),
    await two.type(key),
    await one.persist(key),
    await two.expire(key, 100),
    await one.getdel(key),
    await two.get(key),
    await one.del(key),
  ];
  outcome.transaction = await one.multi().set(key, "1").get(key).del(key).exec();
  await one.set(key, "1");
  await one.watch(key);
  await two.set(key, "2");
  outcome.watched = await one.multi().set(key, "3").exec();
  outcome.kept = await one.get(key);

  const log = named("work");
  outcome.group = [await one.xgroup("CREATE", log, "workers", "$", "MKSTREAM")];
  for (let i = 0; i < 4; i++) await one.xadd(log, "MAXLEN", "~", 1000, "*", "n", `${i}`);
  const read = async (client, name) =>
    await client.xreadgroup("GROUP", "workers", name, "COUNT", 2, "STREAMS", log, ">");
  const first = await read(one, "a");
  const second = await read(two, "b");
  const fields = (reply) => reply[0][1].map(([, values]) => values);
  outcome.read = [fields(first), fields(second), await read(one, "a")];
  const ids = first[0][1].map(([id]) => id);
  outcome.acked = await two.xack(log, "workers", ...ids);
  const pending = await one.xpending(log, "workers");
  outcome.pending = [pending[0], pending[3]];
  const claimed = await one.xautoclaim(log, "workers", "a", 0, "0");
  outcome.claimed = [claimed[0], claimed[1].map(([, values]) => values), claimed[2]];
  outcome.gone = [await two.xgroup("DESTROY", log, "workers"), await one.del(log), await two.exists(log)];
  return outcome;
});
