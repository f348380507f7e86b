// go-redis: subscribers, pipelines, transactions, streams and errors; with the argument "keys", keys and groups.
// It is told its servers' URLs, and prints what came of it as JSON. It knows nothing of Riverbus: of Redis the three URLs
// are one and the same, of Riverbus three nodes.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

var (
	ctx, _ = context.WithTimeout(context.Background(), 30*time.Second)
	run    = fmt.Sprintf("%x", time.Now().UnixNano())
)

func named(name string) string { return name + "-" + run }

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func text(err error) string {
	if err == nil {
		return "no error"
	}
	return err.Error()
}

func receive(pubsub *redis.PubSub, count int) [][]string {
	found := [][]string{}
	for range count {
		message := must(pubsub.ReceiveMessage(ctx))
		found = append(found, []string{message.Pattern, message.Channel, message.Payload})
	}
	return found
}

func channels(one, two, three *redis.Client) map[string]any {
	outcome := map[string]any{}
	news, shard := named("news"), named("shard")
	subscriber := two.Subscribe(ctx, news)
	must(subscriber.Receive(ctx))
	patterns := three.PSubscribe(ctx, news+"*")
	must(patterns.Receive(ctx))
	shards := two.SSubscribe(ctx, shard)
	must(shards.Receive(ctx))
	for i := range 50 {
		must(one.Publish(ctx, news, i).Result())
	}
	must(two.Publish(ctx, news+".sport", "\x00\xff").Result())
	must(two.SPublish(ctx, shard, "sharded").Result())
	outcome["received"] = receive(subscriber, 50)
	outcome["matched"] = receive(patterns, 51)
	outcome["sharded"] = receive(shards, 1)
	outcome["numsub"] = must(one.PubSubNumSub(ctx, news, named("none")).Result())
	outcome["channels"] = must(three.PubSubChannels(ctx, news+"*").Result())
	outcome["ping"] = text(subscriber.Ping(ctx, "hello"))
	outcome["closed"] = []string{text(subscriber.Close()), text(patterns.Close()), text(shards.Close())}
	return outcome
}

func streams(one, two *redis.Client) map[string]any {
	outcome := map[string]any{}
	log := named("{t}log")
	pipe := one.Pipeline()
	for i := range 20 {
		pipe.XAdd(ctx, &redis.XAddArgs{Stream: log, Values: []any{"n", i}})
	}
	outcome["pipelined"] = len(must(pipe.Exec(ctx)))
	entries := must(two.XRange(ctx, log, "-", "+").Result())
	values := []any{}
	for _, entry := range entries {
		values = append(values, entry.Values)
	}
	outcome["entries"] = values
	read := must(one.XRead(ctx, &redis.XReadArgs{Streams: []string{log, entries[17].ID}, Block: -1}).Result())
	outcome["read"] = len(read[0].Messages)
	_, err := one.XRead(ctx, &redis.XReadArgs{Streams: []string{log, "$"}, Block: 10 * time.Millisecond}).Result()
	outcome["in vain"] = text(err)
	transaction := one.TxPipeline()
	length, published := transaction.XLen(ctx, log), transaction.Publish(ctx, log, "x")
	must(transaction.Exec(ctx))
	outcome["transaction"] = []int64{length.Val(), published.Val()}
	outcome["errors"] = []string{
		text(one.Do(ctx, "NOSUCH").Err()),
		text(one.Do(ctx, "XADD", log).Err()),
		text(one.XRange(ctx, log, "x", "+").Err()),
	}
	return outcome
}

func keys(one, two *redis.Client) map[string]any {
	outcome := map[string]any{}
	key, log := named("key"), named("work")
	outcome["strings"] = []any{
		must(one.Set(ctx, key, "v", time.Minute).Result()),
		must(two.Get(ctx, key).Result()),
		must(two.SetNX(ctx, key, "w", 0).Result()),
		must(two.TTL(ctx, key).Result()) > 0,
		must(one.GetDel(ctx, key).Result()),
		text(two.Get(ctx, key).Err()),
	}
	must(one.Set(ctx, key, "1", 0).Result())
	outcome["watched"] = text(one.Watch(ctx, func(tx *redis.Tx) error {
		must(two.Set(ctx, key, "2", 0).Result())
		_, err := tx.TxPipelined(ctx, func(pipe redis.Pipeliner) error { return pipe.Set(ctx, key, "3", 0).Err() })
		return err
	}, key))
	outcome["created"] = must(one.XGroupCreateMkStream(ctx, log, "workers", "0").Result())
	for i := range 6 {
		must(two.XAdd(ctx, &redis.XAddArgs{Stream: log, Values: []any{"n", i}}).Result())
	}
	taken := []any{}
	for i, client := range []*redis.Client{one, two, one} {
		args := &redis.XReadGroupArgs{Group: "workers", Consumer: fmt.Sprint(i % 2), Streams: []string{log, ">"}, Count: 2, Block: -1}
		for _, message := range must(client.XReadGroup(ctx, args).Result())[0].Messages {
			taken = append(taken, message.Values["n"])
			if i == 0 {
				must(two.XAck(ctx, log, "workers", message.ID).Result())
			}
		}
	}
	outcome["taken"] = taken
	pending := must(two.XPending(ctx, log, "workers").Result())
	outcome["pending"] = []any{pending.Count, pending.Consumers}
	groups := must(one.XInfoGroups(ctx, log).Result())[0]
	outcome["groups"] = []any{groups.Name, groups.Consumers, groups.Pending, groups.EntriesRead, groups.Lag}
	outcome["deleted"] = must(one.Del(ctx, key, log).Result())
	return outcome
}

func main() {
	urls := strings.Split(os.Getenv("CLIENT_URLS"), ",")
	clients := []*redis.Client{}
	for i := range 3 {
		clients = append(clients, redis.NewClient(must(redis.ParseURL(urls[i%len(urls)]))))
	}
	var outcome map[string]any
	if len(os.Args) > 1 && os.Args[1] == "keys" {
		outcome = keys(clients[0], clients[1])
	} else {
		outcome = map[string]any{"channels": channels(clients[0], clients[1], clients[2]), "streams": streams(clients[0], clients[1])}
	}
	fmt.Print(strings.ReplaceAll(string(must(json.Marshal(outcome))), "-"+run, ""))
}
