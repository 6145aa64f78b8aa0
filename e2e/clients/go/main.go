// The Go remoting client against one cluster.
//
// Arguments: name server, prefix of topic and group names, features separated by commas. Prints
// one line a feature: `RESULT name ok seconds` or `RESULT name fail reason`.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	rocketmq "github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
	"github.com/apache/rocketmq-client-go/v2/rlog"
)

// How long a feature waits for its messages.
const bound = 40 * time.Second

// scope is what one feature works with: its own topic and group, and clients that end with it.
type scope struct {
	namesrv  string
	topic    string
	group    string
	producer rocketmq.Producer
	closers  []func() error
}

var features = map[string]func(*scope) error{
	"sync":    sendSync,
	"async":   sendAsync,
	"oneway":  sendOneWay,
	"batch":   sendBatch,
	"push":    push,
	"pull":    pull,
	"tags":    tags,
	"ordered": ordered,
}

func main() {
	namesrv, prefix, wanted := os.Args[1], os.Args[2], strings.Split(os.Args[3], ",")
	rlog.SetLogLevel("error")
	var running sync.WaitGroup
	for _, name := range wanted {
		running.Add(1)
		go func(name string) {
			defer running.Done()
			begin := time.Now()
			err := run(namesrv, prefix, name)
			if err != nil {
				fmt.Printf("RESULT %s fail %s\n", name, strings.Join(strings.Fields(err.Error()), " "))
				return
			}
			fmt.Printf("RESULT %s ok %.2f\n", name, time.Since(begin).Seconds())
		}(name)
	}
	running.Wait()
}

func run(namesrv, prefix, name string) error {
	feature, known := features[name]
	if !known {
		return fmt.Errorf("there is no feature %s", name)
	}
	s := &scope{namesrv: namesrv, topic: prefix + "-" + name, group: "g-" + prefix + "-" + name}
	defer func() {
		for i := len(s.closers) - 1; i >= 0; i-- {
			s.closers[i]()
		}
	}()
	var err error
	s.producer, err = rocketmq.NewProducer(
		producer.WithNameServer(primitive.NamesrvAddr{namesrv}),
		producer.WithGroupName("p-"+s.topic),
		producer.WithInstanceName("p-"+s.topic),
		producer.WithSendMsgTimeout(5*time.Second),
		// Part of the ordered feature; the others name no queue key and take turns.
		producer.WithQueueSelector(producer.NewHashQueueSelector()),
	)
	if err != nil {
		return err
	}
	if err := s.producer.Start(); err != nil {
		return err
	}
	s.closers = append(s.closers, s.producer.Shutdown)
	return feature(s)
}

func (s *scope) body(i int) []byte {
	return []byte(fmt.Sprintf("%s body %d", s.topic, i))
}

func (s *scope) message(i int, tag string) *primitive.Message {
	message := primitive.NewMessage(s.topic, s.body(i))
	message.WithTag(tag)
	message.WithKeys([]string{fmt.Sprintf("key-%d", i)})
	message.WithProperty("number", strconv.Itoa(i))
	return message
}

func checkSent(result *primitive.SendResult, err error) error {
	if err != nil {
		return err
	}
	if result.Status != primitive.SendOK || result.MsgID == "" || result.OffsetMsgID == "" {
		return fmt.Errorf("send answered %s", result)
	}
	return nil
}

func (s *scope) send(from, to int, tag string) error {
	for i := from; i < to; i++ {
		if err := checkSent(s.producer.SendSync(context.Background(), s.message(i, tag))); err != nil {
			return err
		}
	}
	return nil
}

func (s *scope) consumerOptions(more ...consumer.Option) []consumer.Option {
	return append([]consumer.Option{
		consumer.WithNameServer(primitive.NamesrvAddr{s.namesrv}),
		consumer.WithGroupName(s.group),
		consumer.WithInstance(s.group),
		consumer.WithConsumeFromWhere(consumer.ConsumeFromFirstOffset),
	}, more...)
}

func byTag(expression string) consumer.MessageSelector {
	return consumer.MessageSelector{Type: consumer.TAG, Expression: expression}
}

// receive collects `count` messages with a push consumer. The list is in order of arrival.
func (s *scope) receive(count int, expression string, more ...consumer.Option) ([]*primitive.MessageExt, error) {
	push, err := rocketmq.NewPushConsumer(s.consumerOptions(more...)...)
	if err != nil {
		return nil, err
	}
	arrived := make(chan *primitive.MessageExt, 1000)
	err = push.Subscribe(s.topic, byTag(expression),
		func(_ context.Context, messages ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
			for _, message := range messages {
				arrived <- message
			}
			return consumer.ConsumeSuccess, nil
		})
	if err != nil {
		return nil, err
	}
	if err := push.Start(); err != nil {
		return nil, err
	}
	s.closers = append(s.closers, push.Shutdown)
	var received []*primitive.MessageExt
	timeout := time.After(bound)
	for len(received) < count {
		select {
		case message := <-arrived:
			received = append(received, message)
		case <-timeout:
			return nil, fmt.Errorf("waited %s for %d messages, have %d", bound, count, len(received))
		}
	}
	return received, nil
}

func (s *scope) check(received []*primitive.MessageExt, from, to int, tag string) error {
	if len(received) != to-from {
		return fmt.Errorf("expected %d messages, got %d", to-from, len(received))
	}
	seen := map[int]bool{}
	for _, message := range received {
		i, err := strconv.Atoi(message.GetProperty("number"))
		if err != nil || i < from || i >= to || seen[i] {
			return fmt.Errorf("message %q is foreign or came twice", message.GetProperty("number"))
		}
		seen[i] = true
		switch {
		case message.Topic != s.topic:
			return fmt.Errorf("topic of message %d: %q", i, message.Topic)
		case !bytes.Equal(message.Body, s.body(i)):
			return fmt.Errorf("body of message %d: %q", i, message.Body)
		case message.GetKeys() != fmt.Sprintf("key-%d", i):
			return fmt.Errorf("keys of message %d: %q", i, message.GetKeys())
		case message.GetTags() != tag:
			return fmt.Errorf("tag of message %d: %q", i, message.GetTags())
		case message.ReconsumeTimes != 0:
			return fmt.Errorf("message %d was consumed %d times before", i, message.ReconsumeTimes)
		}
	}
	return nil
}

func (s *scope) receiveAndCheck(count int) error {
	received, err := s.receive(count, "*")
	if err != nil {
		return err
	}
	return s.check(received, 0, count, "TagA")
}

func sendSync(s *scope) error {
	if err := s.send(0, 12, "TagA"); err != nil {
		return err
	}
	// Past 4 KiB the client compresses; it must get back what the application gave it.
	big := primitive.NewMessage(s.topic, bytes.Repeat([]byte("big "), 25_000))
	big.WithTag("Big")
	if err := checkSent(s.producer.SendSync(context.Background(), big)); err != nil {
		return err
	}
	received, err := s.receive(13, "*")
	if err != nil {
		return err
	}
	var small []*primitive.MessageExt
	for _, message := range received {
		if message.GetTags() != "Big" {
			small = append(small, message)
		} else if !bytes.Equal(message.Body, bytes.Repeat([]byte("big "), 25_000)) {
			return errors.New("the compressed body came back different")
		}
	}
	return s.check(small, 0, 12, "TagA")
}

func sendAsync(s *scope) error {
	answers := make(chan error, 40)
	for i := 0; i < 40; i++ {
		err := s.producer.SendAsync(context.Background(),
			func(_ context.Context, result *primitive.SendResult, err error) {
				answers <- checkSent(result, err)
			}, s.message(i, "TagA"))
		if err != nil {
			return err
		}
	}
	timeout := time.After(bound)
	for i := 0; i < 40; i++ {
		select {
		case err := <-answers:
			if err != nil {
				return err
			}
		case <-timeout:
			return fmt.Errorf("%d of 40 sends never answered", 40-i)
		}
	}
	return s.receiveAndCheck(40)
}

func sendOneWay(s *scope) error {
	// The first send makes the topic, and says when that has happened.
	if err := s.send(0, 1, "TagA"); err != nil {
		return err
	}
	for i := 1; i < 20; i++ {
		if err := s.producer.SendOneWay(context.Background(), s.message(i, "TagA")); err != nil {
			return err
		}
	}
	return s.receiveAndCheck(20)
}

func sendBatch(s *scope) error {
	var messages []*primitive.Message
	for i := 0; i < 16; i++ {
		messages = append(messages, s.message(i, "TagA"))
	}
	result, err := s.producer.SendSync(context.Background(), messages...)
	if err != nil {
		return err
	}
	// This client gives a batch no unique id; the broker's ids are there.
	if result.Status != primitive.SendOK || strings.Count(result.OffsetMsgID, ",") != 15 {
		return fmt.Errorf("send answered %s", result)
	}
	received, err := s.receive(16, "*")
	if err != nil {
		return err
	}
	sort.Slice(received, func(i, j int) bool { return received[i].QueueOffset < received[j].QueueOffset })
	for i, message := range received {
		if message.QueueOffset != result.QueueOffset+int64(i) || message.GetProperty("number") != strconv.Itoa(i) {
			return fmt.Errorf("message %s of the batch is at offset %d, the batch began at %d",
				message.GetProperty("number"), message.QueueOffset, result.QueueOffset)
		}
	}
	return s.check(received, 0, 16, "TagA")
}

// push receives what was there before the consumer and what comes while it waits.
func push(s *scope) error {
	if err := s.send(0, 10, "TagA"); err != nil {
		return err
	}
	late := make(chan error, 1)
	go func() { late <- s.send(10, 30, "TagA") }()
	received, err := s.receive(30, "*")
	if err := <-late; err != nil {
		return err
	}
	if err != nil {
		return err
	}
	return s.check(received, 0, 30, "TagA")
}

func tags(s *scope) error {
	for i := 0; i < 30; i++ {
		if err := s.send(i, i+1, []string{"TagA", "TagB", "TagC"}[i%3]); err != nil {
			return err
		}
	}
	received, err := s.receive(20, "TagA || TagC")
	if err != nil {
		return err
	}
	count := map[string]int{}
	for _, message := range received {
		count[message.GetTags()]++
	}
	if count["TagA"] != 10 || count["TagC"] != 10 {
		return fmt.Errorf("a subscription to A and C got %v", count)
	}
	return nil
}

func ordered(s *scope) error {
	const orders, steps = 3, 8
	for i := 0; i < orders*steps; i++ {
		order := fmt.Sprintf("order-%d", i%orders)
		message := s.message(i, order).WithShardingKey(order)
		if err := checkSent(s.producer.SendSync(context.Background(), message)); err != nil {
			return err
		}
	}
	received, err := s.receive(orders*steps, "*", consumer.WithConsumerOrder(true))
	if err != nil {
		return err
	}
	next := map[string]int{"order-0": 0, "order-1": 1, "order-2": 2}
	for _, message := range received {
		order := message.GetTags()
		if message.GetProperty("number") != strconv.Itoa(next[order]) {
			return fmt.Errorf("%s: expected %d, got %s", order, next[order], message.GetProperty("number"))
		}
		next[order] += orders
	}
	return nil
}

// pull polls and acknowledges, then reads one queue from a place it names itself.
func pull(s *scope) error {
	if err := s.send(0, 20, "TagA"); err != nil {
		return err
	}
	poller, err := rocketmq.NewPullConsumer(s.consumerOptions()...)
	if err != nil {
		return err
	}
	if err := poller.Subscribe(s.topic, byTag("*")); err != nil {
		return err
	}
	if err := poller.Start(); err != nil {
		return err
	}
	s.closers = append(s.closers, poller.Shutdown)
	var received []*primitive.MessageExt
	var queue *primitive.MessageQueue
	for end := time.Now().Add(bound); len(received) < 20; {
		if time.Now().After(end) {
			return fmt.Errorf("waited %s for 20 messages, have %d", bound, len(received))
		}
		request, err := poller.Poll(context.Background(), time.Second)
		if consumer.IsNoNewMsgError(err) {
			continue
		}
		if err != nil {
			return err
		}
		received = append(received, request.GetMsgList()...)
		queue = request.GetMQ()
		poller.ACK(context.Background(), request, consumer.ConsumeSuccess)
	}
	if err := s.check(received, 0, 20, "TagA"); err != nil {
		return err
	}
	result, err := poller.PullFrom(context.Background(), queue, 1, 2)
	if err != nil {
		return err
	}
	if result.Status != primitive.PullFound || result.NextBeginOffset != 3 || result.MinOffset != 0 {
		return fmt.Errorf("pull of offsets 1 and 2 answered %s", result)
	}
	return nil
}
