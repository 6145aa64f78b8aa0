// Command natsload publishes to a JetStream stream and reports as `weir bench produce` does.
//
// It is used for one comparison only: messages that are on disk when they are acknowledged. The
// stream lies in files with one replica; the server runs with sync_interval: always. Connections
// with one message in flight publish and wait; with more in flight they publish asynchronously and
// wait for the oldest acknowledgement.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	stream  = "BENCH"
	subject = "bench"
)

func main() {
	url := flag.String("url", "nats://127.0.0.1:4222", "server")
	connections := flag.Int("c", 1, "connections")
	inFlight := flag.Int("n", 1, "messages in flight on each connection")
	body := flag.Int("body", 1024, "bytes of each message")
	seconds := flag.Float64("seconds", 6, "measured")
	warmup := flag.Float64("warmup", 2, "seconds at load before")
	pid := flag.Int("broker-pid", 0, "process whose CPU and memory are reported")
	flag.Parse()
	report, err := run(*url, *connections, *inFlight, *body, *pid, span(*warmup), span(*seconds))
	if err != nil {
		log.Fatal(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(report); err != nil {
		log.Fatal(err)
	}
}

func span(seconds float64) time.Duration { return time.Duration(seconds * float64(time.Second)) }

// A lane is one connection; only its own goroutine touches it.
type lane struct {
	js           jetstream.JetStream
	inFlight     int
	payload      []byte
	acknowledged uint64
	latencies    []time.Duration
}

// Sent is a message that waits for its acknowledgement.
type sent struct {
	future jetstream.PubAckFuture
	at     time.Time
}

func run(url string, connections, inFlight, body, pid int, warmup, seconds time.Duration) (*report, error) {
	lanes := make([]*lane, connections)
	for index := range lanes {
		connection, err := nats.Connect(url)
		if err != nil {
			return nil, fmt.Errorf("connect to %s: %w", url, err)
		}
		defer connection.Close()
		js, err := jetstream.New(connection, jetstream.WithPublishAsyncMaxPending(inFlight))
		if err != nil {
			return nil, err
		}
		lanes[index] = &lane{js: js, inFlight: inFlight, payload: filler(body)}
	}
	ctx := context.Background()
	held, err := lanes[0].js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name: stream, Subjects: []string{subject}, Storage: jetstream.FileStorage, Replicas: 1,
	})
	if err != nil {
		return nil, fmt.Errorf("create stream: %w", err)
	}
	before, err := held.Info(ctx)
	if err != nil {
		return nil, fmt.Errorf("read stream: %w", err)
	}
	from := time.Now().Add(warmup)
	until := from.Add(seconds)
	failures := make(chan error, connections)
	var running sync.WaitGroup
	for _, lane := range lanes {
		running.Go(func() {
			if err := lane.publish(ctx, from, until); err != nil {
				failures <- err
			}
		})
	}
	time.Sleep(time.Until(from))
	first := snapshot(pid)
	time.Sleep(time.Until(until))
	last := snapshot(pid)
	running.Wait()
	select {
	case err := <-failures:
		return nil, err
	default:
	}
	after, err := held.Info(ctx)
	if err != nil {
		return nil, fmt.Errorf("read stream: %w", err)
	}
	var latencies []time.Duration
	var acknowledged uint64
	for _, lane := range lanes {
		latencies = append(latencies, lane.latencies...)
		acknowledged += lane.acknowledged
	}
	slices.Sort(latencies)
	stored := after.State.Msgs - before.State.Msgs
	if stored != acknowledged {
		return nil, fmt.Errorf("%d messages were acknowledged, %d are there", acknowledged, stored)
	}
	return newReport(latencies, seconds, acknowledged, stored, after.State.Bytes-before.State.Bytes, first, last), nil
}

func (l *lane) publish(ctx context.Context, from, until time.Time) error {
	if l.inFlight == 1 {
		for now := time.Now(); now.Before(until); {
			if _, err := l.js.Publish(ctx, subject, l.payload); err != nil {
				return fmt.Errorf("publish: %w", err)
			}
			now = l.count(now, from, until)
		}
		return nil
	}
	var waiting []sent
	for time.Now().Before(until) || len(waiting) > 0 {
		if time.Now().Before(until) && len(waiting) < l.inFlight {
			at := time.Now()
			future, err := l.js.PublishAsync(subject, l.payload)
			if err != nil {
				return fmt.Errorf("publish: %w", err)
			}
			waiting = append(waiting, sent{future, at})
			continue
		}
		select {
		case <-waiting[0].future.Ok():
		case err := <-waiting[0].future.Err():
			return fmt.Errorf("publish: %w", err)
		}
		l.count(waiting[0].at, from, until)
		waiting = waiting[1:]
	}
	return nil
}

// count takes one acknowledgement of a message sent at `at` and answers the time now.
func (l *lane) count(at, from, until time.Time) time.Time {
	now := time.Now()
	l.acknowledged++
	if !now.Before(from) && now.Before(until) {
		l.latencies = append(l.latencies, now.Sub(at))
	}
	return now
}

// filler is a body that no disk or link compresses away.
func filler(bytes int) []byte {
	payload := make([]byte, bytes)
	state := uint64(0x9E3779B97F4A7C15)
	for index := range payload {
		state ^= state << 13
		state ^= state >> 7
		state ^= state << 17
		payload[index] = '0' + byte((state>>32)%75)
	}
	return payload
}
