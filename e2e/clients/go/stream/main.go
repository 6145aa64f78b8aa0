// A producer or a push consumer that goes on until its standard input ends, and says what came of each
// message. Arguments and lines are those of ../../java/src/Stream.java, which says more; this client polls
// its routes every 30 s and cannot be told otherwise, and there is no ordered role.
package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	rocketmq "github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
	"github.com/apache/rocketmq-client-go/v2/rlog"
	"golang.org/x/sys/unix"
)

const (
	pace  = 5 * time.Millisecond
	pause = 50 * time.Millisecond
)

var output sync.Mutex

func main() {
	namesrv, role, topic, group, instance := os.Args[1], os.Args[2], os.Args[3], os.Args[4], os.Args[5]
	number, err := strconv.ParseUint(os.Args[6], 10, 20)
	check(err)
	rlog.SetLogLevel("fatal")
	over := make(chan struct{})
	go func() {
		io.Copy(io.Discard, os.Stdin)
		close(over)
	}()
	servers := primitive.NamesrvAddr{namesrv}
	switch role {
	case "produce":
		client, err := rocketmq.NewProducer(producer.WithNameServer(servers), producer.WithGroupName(group),
			producer.WithInstanceName(instance))
		check(err)
		check(client.Start())
		say("ready")
		produce(client, topic, number, over)
		check(client.Shutdown())
	case "consume":
		client, err := rocketmq.NewPushConsumer(consumer.WithNameServer(servers), consumer.WithGroupName(group),
			consumer.WithInstance(instance), consumer.WithConsumeFromWhere(consumer.ConsumeFromFirstOffset))
		check(err)
		check(client.Subscribe(topic, consumer.MessageSelector{Type: consumer.TAG, Expression: "*"}, take))
		check(client.Start())
		say("ready")
		<-over
		check(client.Shutdown())
	default:
		check(fmt.Errorf("there is no role %s", role))
	}
}

func produce(client rocketmq.Producer, topic string, from uint64, over chan struct{}) {
	for count := uint64(1); ; count++ {
		select {
		case <-over:
			return
		default:
		}
		number := from<<40 | count
		message := primitive.NewMessage(topic, binary.BigEndian.AppendUint64(nil, number))
		message.WithKeys([]string{fmt.Sprintf("k%d", number)})
		begin := now()
		result, err := client.SendSync(context.Background(), message)
		switch {
		case err != nil:
			// The first words tell errors apart, the rest has addresses.
			words := strings.Join(strings.Fields(strings.SplitN(err.Error(), ", DESC", 2)[0]), "_")
			say("failed %d %d %d %s", begin, now(), number, words)
			time.Sleep(pause)
		case result.Status != primitive.SendOK:
			say("failed %d %d %d status-%d", begin, now(), number, result.Status)
			time.Sleep(pause)
		default:
			say("sent %d %d %d %d %d", begin, now(), number, result.MessageQueue.QueueId, result.QueueOffset)
			time.Sleep(pace)
		}
	}
}

func take(_ context.Context, messages ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
	for _, message := range messages {
		at := now()
		say("got %d %d %d %d %d", at, at, binary.BigEndian.Uint64(message.Body), message.Queue.QueueId,
			message.QueueOffset)
	}
	return consumer.ConsumeSuccess, nil
}

// Nanoseconds of the clock that Java and Python call monotonic.
func now() int64 {
	var time unix.Timespec
	check(unix.ClockGettime(unix.CLOCK_MONOTONIC, &time))
	return time.Nano()
}

func say(format string, values ...any) {
	output.Lock()
	defer output.Unlock()
	fmt.Printf(format+"\n", values...)
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
