// ioredis: subscribers, pipelines, transactions, streams, keys with expiry, errors; and its reconnection.
import Redis from "ioredis";
import { URLS, named, tell, until } from "./outcome.mjs";

await tell(async () => {
  const outcome = {};
  const clients = URLS.map((url) => new Redis(url));
  const [one, two] = clients;
  const subscriber = new Redis(URLS[1]);
  const received = [];
  subscriber.on("message", (channel, text) => received.push([channel, text]));
  subscriber.on("pmessage", (pattern, channel, text) => received.push([pattern, channel, text]));
  const news = named("news");
  outcome.subscribed = [await subscriber.subscribe(news, named("other")), await subscriber.psubscribe(`${news}.*`)];
  for (let i = 0; i < 50; i++) await one.publish(news, `${i}`);
  await two.publish(`${news}.sport`, "goal");
  await until(() => received.length === 51);
  outcome.received = [...received];
  outcome.numsub = await two.pubsub("NUMSUB", news, named("other"), named("none"));
  outcome.ping = await subscriber.ping();
  outcome.left = await subscriber.unsubscribe(news);

  const log = named("log");
  outcome.pipeline = (await one.pipeline().xadd(log, "*", "a", "1").xadd(log, "*", "b", "2").xlen(log).exec()).map(
    ([error, value], i) => [error && error.message, i === 2 ? value : typeof value],
  );
  outcome.range = (await two.xrange(log, "-", "+")).map(([, fields]) => fields);
  const blocked = two.xread("BLOCK", 5000, "STREAMS", log, "$");
  await until(async () => /blocked_clients:[1-9]/.test(await clients[1].duplicate().info("clients")));
  await one.xadd(log, "*", "late", "yes");
  outcome.blocked = (await blocked)[0][1].map(([, fields]) => fields);

  const binary = Buffer.from([0, 255, 13, 10]);
  const raw = new Redis(URLS[2]);
  raw.subscribe(named("raw"));
  const gotBuffer = new Promise((resolve) => raw.on("messageBuffer", (_, body) => resolve(body)));
  await until(async () => (await one.pubsub("NUMSUB", named("raw")))[1] === 1);
  await one.publish(named("raw"), binary);
  outcome.buffer = [...(await gotBuffer)];
  outcome.errors = [];
  for (const [command, ...rest] of [["nosuch", "x"], ["xadd", log], ["xadd", log, "0-1", "a", "b"], ["xrange", log, "x", "+"]]) {
    outcome.errors.push(await one.call(command, ...rest).catch((error) => error.message));
  }

  // A connection that is cut: ioredis reconnects and subscribes anew by itself.
  const name = named("cut");
  await subscriber.subscribe(name);
  const id = await subscriber.duplicate().client("LIST").then((text) => /id=(\d+)[^\n]*sub=[1-9][^\n]*psub=1/.exec(text));
  outcome.found = id !== null;
  await clients[1].call("CLIENT", "KILL", "ID", id[1]);
  await until(() => subscriber.status !== "ready");
  await until(() => subscriber.status === "ready");
  await until(async () => (await clients[1].pubsub("NUMSUB", name))[1] === 1);
  received.length = 0;
  await one.publish(name, "again");
  await until(() => received.length === 1);
  outcome.again = received;
  return outcome;
});
