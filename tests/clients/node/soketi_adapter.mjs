// Soketi servers joined by its Redis adapter, each on a node of its own: what its WebSocket handler asks of an adapter, for
// sockets that only remember what they are sent. (Its WebSocket library is not in the npm registry.)
import { createRequire } from "node:module";
import { URLS, named, tell, until } from "./outcome.mjs";

const { RedisAdapter } = createRequire(import.meta.url)("@soketi/soketi/dist/adapters/redis-adapter.js");
const APP = "app";
const uncounted = new Proxy({}, { get: () => () => {} });

async function serve(url) {
  const { hostname, port } = new URL(url);
  const redis = { prefix: named("soketi"), requestsTimeout: 5000, redisPubOptions: {}, redisSubOptions: {}, clusterMode: false };
  const database = { redis: { host: hostname, port: Number(port), db: 0 } };
  return await new RedisAdapter({ options: { adapter: { redis }, database, debug: false }, metricsManager: uncounted }).init();
}

function open(id, userId, channel) {
  const socket = { id, app: { id: APP }, user: { id: userId }, ip: "::1", received: [], closed: [] };
  socket.subscribedChannels = new Set([channel]);
  socket.presence = new Map([[channel, { user_id: userId, user_info: { name: `user ${userId}` } }]]);
  socket.sendJson = (message) => socket.received.push(message);
  socket.end = (code) => socket.closed.push(code);
  return socket;
}

await tell(async () => {
  const outcome = {};
  const servers = await Promise.all(URLS.map(serve));
  for (const server of servers) await until(async () => (await server.getNumSub()) === 3);
  const [a, b, c] = servers;
  const sockets = [open("1.1", "ann", "presence-room"), open("2.1", "bob", "presence-room"), open("3.1", "cas", "news")];
  for (const [i, socket] of sockets.entries()) {
    await servers[i].addSocket(APP, socket);
    await servers[i].addToChannel(APP, [...socket.subscribedChannels][0], socket);
    await servers[i].addUser(socket);
  }
  outcome.sockets = [...(await c.getSockets(APP)).keys()].sort();
  outcome.counts = await Promise.all(servers.map((server) => server.getSocketsCount(APP)));
  outcome.inRoom = await Promise.all(servers.map((server) => server.getChannelSocketsCount(APP, "presence-room")));
  outcome.channels = [...(await b.getChannels(APP))].map(([name, ids]) => [name, [...ids].sort()]).sort();
  outcome.occupied = [...(await a.getChannelsWithSocketsCount(APP))].sort();
  outcome.members = [...(await c.getChannelMembers(APP, "presence-room"))].sort();
  outcome.memberCount = await c.getChannelMembersCount(APP, "presence-room");
  outcome.isIn = [await c.isInChannel(APP, "presence-room", "1.1"), await c.isInChannel(APP, "news", "1.1")];
  for (let i = 0; i < 50; i++) a.send(APP, "presence-room", JSON.stringify({ event: "said", data: i }), i % 5 ? null : "2.1");
  c.send(APP, "news", JSON.stringify({ event: "said", data: "ü" }));
  b.send(APP, "#server-to-user-cas", JSON.stringify({ event: "to you", data: {} }));
  await until(() => sockets[0].received.length === 50 && sockets[1].received.length === 40 && sockets[2].received.length === 2);
  outcome.received = sockets.map((socket) => socket.received);
  c.terminateUserConnections(APP, "ann");
  await until(() => sockets[0].closed.length > 0);
  outcome.closed = sockets.map((socket) => [socket.closed[0], socket.received.at(-1)]);
  await a.removeFromChannel(APP, "presence-room", "1.1");
  await a.removeSocket(APP, "1.1");
  await a.disconnect();
  await until(async () => (await b.getNumSub()) === 2);
  outcome.left = [await b.getSocketsCount(APP), await c.getChannelSocketsCount(APP, "presence-room")];
  return outcome;
});
