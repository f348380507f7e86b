// Socket.IO servers joined by @socket.io/redis-adapter (plain, sharded) or @socket.io/redis-streams-adapter, each server
// on a node of its own, with real clients: rooms, counts over all servers, servers among themselves.
import { createServer } from "node:http";
import { createClient } from "redis";
import { Server } from "socket.io";
import { io } from "socket.io-client";
import { createAdapter, createShardedAdapter } from "@socket.io/redis-adapter";
import { createAdapter as createStreamsAdapter } from "@socket.io/redis-streams-adapter";
import { URLS, named, tell, until } from "./outcome.mjs";

const kind = process.argv[2];

async function adapter(url) {
  const client = await createClient({ url }).connect();
  if (kind === "streams") return createStreamsAdapter(client, { streamName: named("socket.io"), readCount: 100 });
  const subscriber = await client.duplicate().connect();
  if (kind === "sharded") return createShardedAdapter(client, subscriber, { channelPrefix: named("socket.io") });
  return createAdapter(client, subscriber, { key: named("socket.io") });
}

async function serve(url) {
  const http = createServer();
  const options = kind === "streams" ? { connectionStateRecovery: {} } : {};
  const server = new Server(http, { adapter: await adapter(url), ...options });
  server.on("connection", (socket) => {
    socket.on("join", async (room, done) => done(await socket.join(room) ?? room));
  });
  server.on("asked", (question, answer) => answer(`${question} answered`));
  await new Promise((resolve) => http.listen(0, "127.0.0.1", resolve));
  return { server, port: http.address().port };
}

// A client whose connection breaks gets what was emitted meanwhile, from the stream and its stored session.
async function recover(client, server, got) {
  const before = got.length;
  server.emit("said", "its offset");
  await until(() => got.length === before + 1);
  const back = new Promise((resolve) => client.once("connect", () => resolve(client.recovered)));
  client.io.engine.close();
  await until(() => !client.connected);
  for (let i = 0; i < 5; i++) server.emit("said", "meanwhile", i);
  const recovered = await back;
  await until(() => got.length === before + 6);
  return [recovered, got.slice(before)];
}

await tell(async () => {
  const outcome = {};
  const servers = await Promise.all(URLS.map(serve));
  const received = [[], [], [], []];
  const clients = await Promise.all(
    [0, 0, 1, 2].map(async ({}, i) => {
      const client = io(`http://127.0.0.1:${servers[[0, 0, 1, 2][i]].port}`, { transports: ["websocket"] });
      client.on("said", (...values) => {
        if (/^\d+-\d+$/.test(values.at(-1))) values.pop(); // the offset that recovery adds
        received[i].push(values.map((v) => (v instanceof Buffer ? [...v] : v)));
      });
      client.on("asked", (question, answer) => answer(`${question} ${i}`));
      await new Promise((resolve) => client.once("connect", resolve));
      return client;
    }),
  );
  const [a, b, c] = servers.map(({ server }) => server);
  await until(async () => (await a.fetchSockets().catch(() => [])).length === 4); // each server knows of the others
  await until(async () => (await c.fetchSockets().catch(() => [])).length === 4);
  for (const i of [0, 2]) await clients[i].emitWithAck("join", "room");
  outcome.room = (await b.in("room").fetchSockets()).length;
  for (let i = 0; i < 20; i++) a.to("room").emit("said", i);
  await until(() => received[0].length === 20 && received[2].length === 20);
  b.emit("said", "to all", Buffer.from([0, 255]));
  await until(() => received.every((each) => each.at(-1)?.[0] === "to all"));
  c.except("room").emit("said", "not the room");
  await until(() => received[1].length === 2 && received[3].length === 2);
  outcome.received = received;
  outcome.acks = (await a.timeout(5000).emitWithAck("asked", "who")).sort();
  if (kind !== "streams") outcome.servers = (await a.serverSideEmitWithAck("asked", "you")).sort();
  a.in("room").socketsJoin("second");
  await until(async () => (await c.in("second").fetchSockets()).length === 2);
  c.in("second").socketsLeave("second");
  await until(async () => (await b.in("second").fetchSockets()).length === 0);
  if (kind === "streams") outcome.recovered = await recover(clients[1], a, received[1]);
  b.in("room").disconnectSockets();
  await until(() => !clients[0].connected && !clients[2].connected);
  outcome.left = (await c.fetchSockets()).length;
  return outcome;
});
