// node-redis: subscribers (plain, pattern, sharded), automatic pipelining, streams, errors.
import { createClient } from "redis";
import { URLS, named, tell, until } from "./outcome.mjs";

await tell(async () => {
  const outcome = {};
  const clients = URLS.map((url) => createClient({ url }));
  for (const client of clients) await client.connect();
  const [one, two] = clients;
  const subscriber = await two.duplicate().connect();
  const received = [];
  const [news, shard] = [named("news"), named("shard")];
  await subscriber.subscribe(news, (text, channel) => received.push([channel, text]));
  await subscriber.pSubscribe(`${news}.*`, (text, channel) => received.push([channel, text]));
  await subscriber.sSubscribe(shard, (text, channel) => received.push([channel, text]));
  for (let i = 0; i < 50; i++) await one.publish(news, `${i}`);
  await until(() => received.length === 50);
  await one.publish(`${news}.sport`, "goal");
  await until(() => received.length === 51);
  await two.sPublish(shard, "sharded");
  await until(() => received.length === 52);
  outcome.received = received;
  outcome.numsub = [
    await two.pubSubNumSub([news, named("none")]),
    await two.pubSubShardNumSub([shard]),
    await two.pubSubChannels(`${news}*`),
  ];
  await subscriber.unsubscribe(news);
  await until(async () => (await two.pubSubNumSub(news))[news] === 0);
  const log = named("log");
  const ids = await Promise.all([...Array(20).keys()].map((i) => one.xAdd(log, "*", { n: `${i}` })));
  outcome.rise = ids.every((id, i) => i === 0 || id !== ids[i - 1]);
  outcome.entries = (await two.xRange(log, "-", "+")).map(({ message }) => message);
  outcome.read = (await two.xRead({ key: log, id: ids[17] }))[0].messages.map(({ message }) => message);
  outcome.length = await one.xLen(log);
  outcome.transaction = (await one.multi().xLen(log).publish(news, "x").exec())[0];
  outcome.errors = [];
  for (const command of [["NOSUCH"], ["XADD", log], ["XRANGE", log, "x", "+"]]) {
    outcome.errors.push(await one.sendCommand(command).catch((error) => error.message));
  }
  return outcome;
});
