// Uses most of amqp091-go's API against a broker: one line of JSON for each step (see ../../programs.py).
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"reflect"
	"runtime/debug"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const wait = 10 * time.Second

var (
	address    = os.Args[1]
	prefix     = os.Args[2]
	relayPort  = os.Args[3]
	answers    = bufio.NewReader(os.Stdin)
	background = context.Background()
	connection *amqp.Connection
	count      int
)

func say(line map[string]string) {
	text, _ := json.Marshal(line)
	fmt.Println(string(text))
}

func name(word string) string {
	count++
	return fmt.Sprintf("%s.%s.%d", prefix, word, count)
}

// A step fails by a panic with what went wrong.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

func ok[T any](value T, err error) T {
	must(err)
	return value
}

func equal(got, expected any) {
	if !reflect.DeepEqual(got, expected) {
		panic(fmt.Sprintf("got %#v instead of %#v", got, expected))
	}
}

func refused(err error, code int, text string) {
	var told *amqp.Error
	if !errors.As(err, &told) {
		panic(fmt.Sprintf("not refused with %d %s, but: %v", code, text, err))
	}
	if told.Code != code || !strings.HasPrefix(told.Reason, text) {
		panic(fmt.Sprintf("got %d %s instead of %d %s", told.Code, told.Reason, code, text))
	}
}

func next[T any](from <-chan T, what string) T {
	select {
	case value, open := <-from:
		if !open {
			panic("the Go channel was closed instead of giving " + what)
		}
		return value
	case <-time.After(wait):
		panic("waited too long for " + what)
	}
}

func until(condition func() bool, what string) {
	for end := time.Now().Add(wait); !condition(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			panic("waited too long until " + what)
		}
	}
}

func login() *url.URL { return ok(url.Parse(address)) }

func dial(config amqp.Config) *amqp.Connection { return ok(amqp.DialConfig(address, config)) }

func open() *amqp.Channel { return ok(connection.Channel()) }

func queue(channel *amqp.Channel, arguments amqp.Table) string {
	return ok(channel.QueueDeclare(name("q"), false, false, true, false, arguments)).Name
}

func exchange(channel *amqp.Channel, kind string) string {
	named := name("x")
	must(channel.ExchangeDeclare(named, kind, false, true, false, false, nil))
	return named
}

func publish(channel *amqp.Channel, to, key string, message amqp.Publishing) {
	confirmed := ok(channel.PublishWithDeferredConfirmWithContext(background, to, key, false, false, message))
	ctx, cancel := context.WithTimeout(background, wait)
	defer cancel()
	if confirmed != nil && !ok(confirmed.WaitContext(ctx)) {
		panic("nacked")
	}
}

func send(channel *amqp.Channel, to string, texts ...string) {
	for _, text := range texts {
		publish(channel, "", to, amqp.Publishing{Body: []byte(text)})
	}
}

func get(channel *amqp.Channel, from string, noAck bool) (message amqp.Delivery) {
	until(func() bool {
		var there bool
		message, there, _ = channel.Get(from, noAck)
		return there
	}, "there is a message in "+from)
	return message
}

func isEmpty(channel *amqp.Channel, from string) {
	if message, there, err := channel.Get(from, true); there || err != nil {
		panic(fmt.Sprintf("there is %q in %s, or %v", message.Body, from, err))
	}
}

func consume(channel *amqp.Channel, from string, noAck bool) <-chan amqp.Delivery {
	return ok(channel.Consume(from, "", noAck, false, false, false, nil))
}

// Who of the queues gets the message?
func routed(channel *amqp.Channel, source, key string, headers amqp.Table, queues ...string) string {
	publish(channel, source, key, amqp.Publishing{Headers: headers})
	reached := ""
	for i, each := range queues {
		if _, there, err := channel.Get(each, true); there && err == nil {
			reached += string(rune('a' + i))
		}
	}
	return reached
}

func deaths(message amqp.Delivery) amqp.Table {
	return message.Headers["x-death"].([]any)[0].(amqp.Table)
}

type step struct {
	name string
	run  func(channel, confirming *amqp.Channel)
}

var steps = []step{
	{"connect", func(_, _ *amqp.Channel) {
		properties := amqp.NewConnectionProperties()
		properties.SetClientConnectionName(prefix)
		opened := dial(amqp.Config{Heartbeat: 7 * time.Second, FrameSize: 8192, ChannelMax: 50, Properties: properties})
		equal(opened.Config.Heartbeat, 7*time.Second)
		equal(opened.Config.FrameSize, 8192)
		equal(opened.Config.ChannelMax, uint16(50))
		must(opened.Close())
	}},
	{"server-properties", func(_, _ *amqp.Channel) {
		capabilities := connection.Properties["capabilities"].(amqp.Table)
		for _, word := range []string{"publisher_confirms", "exchange_exchange_bindings", "basic.nack", "consumer_cancel_notify",
			"connection.blocked", "consumer_priorities", "authentication_failure_close", "per_consumer_qos", "direct_reply_to"} {
			equal(capabilities[word], true)
		}
		equal(connection.Major, 0)
		equal(connection.Minor, 9)
		equal(connection.Locales, []string{"en_US"})
	}},
	{"wrong-password", func(_, _ *amqp.Channel) {
		wrong := login()
		wrong.User = url.UserPassword(wrong.User.Username(), "wrong")
		_, err := amqp.Dial(wrong.String())
		refused(err, 403, "username or password not allowed") // its own text
	}},
	{"unknown-vhost", func(_, _ *amqp.Channel) {
		_, err := amqp.DialConfig(address, amqp.Config{Vhost: "nowhere"})
		refused(err, 530, "NOT_ALLOWED - vhost nowhere not found")
	}},
	{"many-channels", func(_, _ *amqp.Channel) {
		opened := dial(amqp.Config{})
		channels := make([]*amqp.Channel, 100)
		for i := range channels {
			channels[i] = ok(opened.Channel())
			queue(channels[i], nil)
		}
		for _, channel := range channels[50:] {
			must(channel.Close())
		}
		queue(channels[0], nil)
		must(opened.Close())
	}},
	{"blocked-listener", func(_, _ *amqp.Channel) { connection.NotifyBlocked(make(chan amqp.Blocking, 1)) }},
	{"update-secret", func(_, _ *amqp.Channel) {
		password, _ := login().User.Password()
		must(connection.UpdateSecret(password, "because"))
	}},
	{"declare-queue", func(channel, _ *amqp.Channel) {
		named := queue(channel, nil)
		equal(ok(channel.QueueDeclare(named, false, false, true, false, nil)), amqp.Queue{Name: named})
		send(channel, named, "one")
		until(func() bool {
			return ok(channel.QueueDeclarePassive(named, false, false, true, false, nil)).Messages == 1
		}, "it counts")
		if own := ok(channel.QueueDeclare("", false, true, true, false, nil)).Name; !strings.HasPrefix(own, "amq.gen-") {
			panic(own)
		}
	}},
	{"queue-arguments", func(channel, _ *amqp.Channel) {
		arguments := amqp.Table{
			amqp.QueueMessageTTLArg: 60000, amqp.QueueTTLArg: int64(60000), amqp.QueueMaxLenArg: 10, amqp.QueueMaxLenBytesArg: int16(1000),
			amqp.QueueOverflowArg: amqp.QueueOverflowRejectPublish, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "k",
			"x-max-priority": int8(5), amqp.SingleActiveConsumerArg: true, "x-queue-mode": "lazy",
		}
		named := queue(channel, arguments)
		ok(channel.QueueDeclare(named, false, false, true, false, arguments))
	}},
	{"unknown-queue", func(channel, _ *amqp.Channel) {
		none := name("none")
		_, err := channel.QueueDeclarePassive(none, false, false, false, false, nil)
		refused(err, 404, fmt.Sprintf("NOT_FOUND - no queue '%s' in vhost '/'", none))
		queue(open(), nil)
	}},
	{"other-properties", func(channel, _ *amqp.Channel) {
		named := queue(channel, amqp.Table{amqp.QueueMessageTTLArg: 1000})
		_, err := channel.QueueDeclare(named, false, false, true, false, amqp.Table{amqp.QueueMessageTTLArg: 2000})
		refused(err, 406, fmt.Sprintf("PRECONDITION_FAILED - inequivalent arg 'x-message-ttl' for queue '%s' in vhost '/': "+
			"received '2000' but current is '1000'", named))
	}},
	{"locked-queue", func(channel, _ *amqp.Channel) {
		named := queue(channel, nil)
		other := dial(amqp.Config{})
		_, err := ok(other.Channel()).Consume(named, "", true, false, false, false, nil)
		refused(err, 405, fmt.Sprintf("RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '%s' in vhost '/'", named))
		must(other.Close())
	}},
	{"exchange-types", func(channel, _ *amqp.Channel) {
		for _, kind := range []string{amqp.ExchangeDirect, amqp.ExchangeFanout, amqp.ExchangeTopic, amqp.ExchangeHeaders} {
			named, internal, arguments := name("x"), kind == amqp.ExchangeFanout, amqp.Table{"note": 1}
			must(channel.ExchangeDeclare(named, kind, true, false, internal, false, arguments))
			must(channel.ExchangeDeclare(named, kind, true, false, internal, false, arguments))
			must(channel.ExchangeDeclarePassive(named, kind, true, false, internal, false, arguments))
			must(channel.ExchangeDelete(named, true, false))
		}
		none := name("none")
		refused(channel.ExchangeDeclarePassive(none, "direct", false, false, false, false, nil), 404,
			fmt.Sprintf("NOT_FOUND - no exchange '%s' in vhost '/'", none))
	}},
	{"route-direct", func(_, channel *amqp.Channel) {
		source, a, b := exchange(channel, "direct"), queue(channel, nil), queue(channel, nil)
		must(channel.QueueBind(a, "red", source, false, nil))
		must(channel.QueueBind(b, "red", source, false, nil))
		must(channel.QueueBind(b, "blue", source, false, nil))
		equal(routed(channel, source, "red", nil, a, b), "ab")
		equal(routed(channel, source, "blue", nil, a, b), "b")
		must(channel.QueueUnbind(b, "red", source, nil))
		equal(routed(channel, source, "red", nil, a, b), "a")
	}},
	{"route-fanout", func(_, channel *amqp.Channel) {
		source, a, b := exchange(channel, "fanout"), queue(channel, nil), queue(channel, nil)
		must(channel.QueueBind(a, "", source, false, nil))
		must(channel.QueueBind(b, "ignored", source, false, nil))
		equal(routed(channel, source, "any", nil, a, b), "ab")
	}},
	{"route-topic", func(_, channel *amqp.Channel) {
		source, a, b, c := exchange(channel, "topic"), queue(channel, nil), queue(channel, nil), queue(channel, nil)
		must(channel.QueueBind(a, "*.orange.*", source, false, nil))
		must(channel.QueueBind(b, "lazy.#", source, false, nil))
		must(channel.QueueBind(c, "#", source, false, nil))
		equal(routed(channel, source, "quick.orange.fox", nil, a, b, c), "ac")
		equal(routed(channel, source, "lazy.orange.elephant", nil, a, b, c), "abc")
		equal(routed(channel, source, "lazy", nil, a, b, c), "bc")
		equal(routed(channel, source, "", nil, a, b, c), "c")
	}},
	{"route-headers", func(_, channel *amqp.Channel) {
		source, a, b := exchange(channel, "headers"), queue(channel, nil), queue(channel, nil)
		must(channel.QueueBind(a, "", source, false, amqp.Table{"x-match": "all", "size": 1, "colour": "red"}))
		must(channel.QueueBind(b, "", source, false, amqp.Table{"x-match": "any", "size": 1, "colour": "red"}))
		equal(routed(channel, source, "", amqp.Table{"size": 1, "colour": "red"}, a, b), "ab")
		equal(routed(channel, source, "", amqp.Table{"size": 2, "colour": "red"}, a, b), "b")
		equal(routed(channel, source, "", amqp.Table{"size": 2}, a, b), "")
	}},
	{"exchange-to-exchange", func(_, channel *amqp.Channel) {
		source, target, a := exchange(channel, "topic"), exchange(channel, "fanout"), queue(channel, nil)
		must(channel.QueueBind(a, "", target, false, nil))
		must(channel.ExchangeBind(target, "kept", source, false, nil)) // so that it is not deleted with the other one
		must(channel.ExchangeBind(target, "x.*", source, false, amqp.Table{"note": "kept"}))
		equal(routed(channel, source, "x.1", nil, a), "a")
		must(channel.ExchangeUnbind(target, "x.*", source, false, amqp.Table{"note": "kept"}))
		equal(routed(channel, source, "x.1", nil, a), "")
	}},
	{"alternate-exchange", func(_, channel *amqp.Channel) {
		spare, source, a := exchange(channel, "fanout"), name("x"), queue(channel, nil)
		must(channel.ExchangeDeclare(source, "direct", false, false, false, false, amqp.Table{"alternate-exchange": spare}))
		must(channel.QueueBind(a, "", spare, false, nil))
		equal(routed(channel, source, "unrouted", nil, a), "a")
		must(channel.ExchangeDelete(source, false, false))
	}},
	{"default-exchange", func(_, channel *amqp.Channel) {
		a := queue(channel, nil)
		equal(routed(channel, "", a, nil, a), "a")
		refused(channel.QueueBind(a, "k", "", false, nil), 403, "ACCESS_REFUSED - operation not permitted on the default exchange")
	}},
	{"purge-delete", func(_, channel *amqp.Channel) {
		a := queue(channel, nil)
		send(channel, a, "1", "2", "3", "4", "5")
		equal(ok(channel.QueuePurge(a, false)), 5)
		send(channel, a, "1")
		equal(ok(channel.QueueDelete(a, false, false, false)), 1)
		equal(ok(channel.QueueDelete(a, false, false, false)), 0)
	}},
	{"delete-conditions", func(channel, confirming *amqp.Channel) {
		a := queue(channel, nil)
		send(confirming, a, "m")
		_, err := open().QueueDelete(a, false, true, false)
		refused(err, 406, fmt.Sprintf("PRECONDITION_FAILED - queue '%s' in vhost '/' not empty", a))
		consume(channel, a, false)
		_, err = open().QueueDelete(a, true, false, false)
		refused(err, 406, fmt.Sprintf("PRECONDITION_FAILED - queue '%s' in vhost '/' in use", a))
	}},
	{"properties", func(channel, confirming *amqp.Channel) {
		a := queue(channel, nil)
		sent := amqp.Publishing{
			ContentType: "application/json", ContentEncoding: "utf-8", Headers: amqp.Table{"h": int32(1)}, DeliveryMode: amqp.Persistent,
			Priority: 7, CorrelationId: "c-1", ReplyTo: "r", Expiration: "60000", MessageId: "m-1",
			Timestamp: time.Unix(1700000000, 0), Type: "t", UserId: login().User.Username(), AppId: "app", Body: []byte("{}"),
		}
		publish(confirming, "", a, sent)
		m := get(channel, a, true)
		equal(amqp.Publishing{
			ContentType: m.ContentType, ContentEncoding: m.ContentEncoding, Headers: m.Headers, DeliveryMode: m.DeliveryMode,
			Priority: m.Priority, CorrelationId: m.CorrelationId, ReplyTo: m.ReplyTo, Expiration: m.Expiration, MessageId: m.MessageId,
			Timestamp: m.Timestamp, Type: m.Type, UserId: m.UserId, AppId: m.AppId, Body: m.Body,
		}, sent)
		equal([]any{m.Exchange, m.RoutingKey, m.Redelivered}, []any{"", a, false})
	}},
	{"headers", func(channel, confirming *amqp.Channel) {
		a := queue(channel, nil)
		headers := amqp.Table{
			"text": "gr\u00fc\u00df \U0001f407", "empty": "", "yes": true, "no": false, "unsigned": byte(200), "signed": int8(-100),
			"short": int16(-30000), "int": int32(2000000000), "long": int64(1) << 62, "float": float32(0.25), "double": 1.1,
			"decimal": amqp.Decimal{Scale: 2, Value: 314}, "nothing": nil, "bytes": []byte{0, 255, 1}, "time": time.Unix(1700000000, 0),
			"list":  []any{int32(1), "two", []any{int64(3)}, amqp.Table{"four": int8(4)}},
			"table": amqp.Table{"deep": amqp.Table{"deeper": []any{"x"}}}, "ushort": uint16(60000), "uint": uint32(4000000000),
		}
		publish(confirming, "", a, amqp.Publishing{Headers: headers})
		equal(get(channel, a, true).Headers, headers)
	}},
	{"large", func(channel, confirming *amqp.Channel) {
		a := queue(channel, nil)
		content := bytes.Repeat([]byte("the quick brown fox "), 1<<16)
		publish(confirming, "", a, amqp.Publishing{Body: content})
		equal(bytes.Equal(get(channel, a, true).Body, content), true)
		small := dial(amqp.Config{FrameSize: 4096})
		equal(small.Config.FrameSize, 4096)
		again := ok(small.Channel())
		own := queue(again, nil)
		publish(again, "", own, amqp.Publishing{Body: content})
		equal(bytes.Equal(get(again, own, true).Body, content), true)
		must(small.Close())
	}},
	{"empty", func(channel, confirming *amqp.Channel) {
		a := queue(channel, nil)
		send(confirming, a, "")
		equal(len(get(channel, a, true).Body), 0)
	}},
	{"mandatory", func(channel, _ *amqp.Channel) {
		returns := channel.NotifyReturn(make(chan amqp.Return, 1))
		must(channel.PublishWithContext(background, "", name("none"), true, false, amqp.Publishing{MessageId: "m", Body: []byte("lost")}))
		back := next(returns, "the message")
		equal([]any{back.ReplyCode, back.ReplyText, back.MessageId, string(back.Body)}, []any{uint16(312), "NO_ROUTE", "m", "lost"})
	}},
	{"confirm", func(_, channel *amqp.Channel) {
		a := queue(channel, nil)
		confirms := channel.NotifyPublish(make(chan amqp.Confirmation, 2))
		publish(channel, "", a, amqp.Publishing{DeliveryMode: amqp.Persistent})
		equal(next(confirms, "the confirm"), amqp.Confirmation{DeliveryTag: 1, Ack: true})
		equal(ok(channel.QueueDeclarePassive(a, false, false, true, false, nil)).Messages, 1)
		returns := channel.NotifyReturn(make(chan amqp.Return, 1))
		must(channel.PublishWithContext(background, "", name("none"), true, false, amqp.Publishing{}))
		equal(next(confirms, "the confirm"), amqp.Confirmation{DeliveryTag: 2, Ack: true})
		equal(len(returns), 1)
	}},
	{"confirm-many", func(_, channel *amqp.Channel) {
		a := queue(channel, nil)
		confirms := channel.NotifyPublish(make(chan amqp.Confirmation, 1000))
		for i := 0; i < 1000; i++ {
			must(channel.PublishWithContext(background, "", a, false, false, amqp.Publishing{Body: []byte("m")}))
		}
		for i := 1; i <= 1000; i++ {
			equal(next(confirms, "a confirm"), amqp.Confirmation{DeliveryTag: uint64(i), Ack: true})
		}
		equal(ok(channel.QueueDeclarePassive(a, false, false, true, false, nil)).Messages, 1000)
	}},
	{"confirm-nack", func(_, channel *amqp.Channel) {
		a := queue(channel, amqp.Table{amqp.QueueMaxLenArg: 1, amqp.QueueOverflowArg: amqp.QueueOverflowRejectPublish})
		_, nacks := channel.NotifyConfirm(make(chan uint64, 2), make(chan uint64, 2))
		send(channel, a, "fits")
		must(channel.PublishWithContext(background, "", a, false, false, amqp.Publishing{Body: []byte("does not")}))
		equal(next(nacks, "the nack"), uint64(2))
	}},
	{"get", func(channel, confirming *amqp.Channel) {
		a := queue(channel, nil)
		isEmpty(channel, a)
		send(confirming, a, "1", "2")
		first := get(channel, a, false)
		equal([]any{string(first.Body), first.MessageCount}, []any{"1", uint32(1)})
		must(first.Ack(false))
		equal(get(channel, a, true).MessageCount, uint32(0))
	}},
	{"consume-ack", func(channel, confirming *amqp.Channel) {
		a := queue(channel, nil)
		deliveries := ok(channel.Consume(a, "mine", false, false, false, false, nil))
		send(confirming, a, "1", "2", "3", "4", "5")
		for tag, text := range []string{"1", "2", "3", "4", "5"} {
			m := next(deliveries, "a delivery")
			equal([]any{m.DeliveryTag, m.ConsumerTag, string(m.Body)}, []any{uint64(tag + 1), "mine", text})
		}
		must(channel.Ack(3, true))
		must(channel.Ack(5, false))
		must(channel.Close())
		left := get(confirming, a, false)
		equal([]any{string(left.Body), left.Redelivered, left.MessageCount}, []any{"4", true, uint32(0)})
	}},
	{"consume-no-ack", func(channel, confirming *amqp.Channel) {
		a := queue(channel, nil)
		deliveries := consume(channel, a, true)
		send(confirming, a, "1", "2", "3")
		for i := 0; i < 3; i++ {
			next(deliveries, "a delivery")
		}
		must(channel.Close())
		isEmpty(confirming, a)
	}},
	{"nack", func(channel, confirming *amqp.Channel) {
		a := queue(channel, nil)
		send(confirming, a, "1", "2", "3")
		get(channel, a, false)
		second, third := get(channel, a, false), get(channel, a, false)
		must(second.Nack(true, true))
		must(third.Nack(false, false))
		for _, text := range []string{"1", "2"} {
			again := get(channel, a, true)
			equal([]any{string(again.Body), again.Redelivered}, []any{text, true})
		}
		isEmpty(channel, a)
	}},
	{"reject", func(channel, confirming *amqp.Channel) {
		a := queue(channel, nil)
		send(confirming, a, "m")
		must(ok(get(channel, a, false), nil).Reject(true))
		again := get(channel, a, false)
		equal(again.Redelivered, true)
		must(again.Reject(false))
		isEmpty(channel, a)
	}},
	{"recover", func(channel, confirming *amqp.Channel) {
		a := queue(channel, nil)
		send(confirming, a, "m")
		deliveries := consume(channel, a, false)
		next(deliveries, "the first delivery")
		must(channel.Recover(true))
		equal(next(deliveries, "the second delivery").Redelivered, true)
	}},
	{"prefetch", func(channel, confirming *amqp.Channel) {
		a := queue(channel, nil)
		send(confirming, a, "1", "2", "3", "4", "5")
		must(channel.Qos(2, 0, false))
		deliveries := consume(channel, a, false)
		next(deliveries, "the first")
		second := next(deliveries, "the second")
		equal(ok(confirming.QueueDeclarePassive(a, false, false, true, false, nil)).Messages, 3)
		equal(len(deliveries), 0)
		must(second.Ack(true))
		equal(string(next(deliveries, "the third").Body), "3")
		must(channel.Qos(3, 0, true))
	}},
	{"cancel", func(channel, confirming *amqp.Channel) {
		a := queue(channel, nil)
		deliveries := ok(channel.Consume(a, "mine", false, false, false, false, nil))
		equal(ok(confirming.QueueDeclarePassive(a, false, false, true, false, nil)).Consumers, 1)
		must(channel.Cancel("mine", false))
		send(confirming, a, "m")
		equal(ok(confirming.QueueDeclarePassive(a, false, false, true, false, nil)), amqp.Queue{Name: a, Messages: 1})
		_, more := <-deliveries
		equal(more, false)
	}},
	{"server-cancel", func(channel, confirming *amqp.Channel) {
		a := queue(channel, nil)
		cancelled := channel.NotifyCancel(make(chan string, 1))
		ok(channel.Consume(a, "mine", false, false, false, false, nil))
		ok(confirming.QueueDelete(a, false, false, false))
		equal(next(cancelled, "the cancel"), "mine")
		queue(channel, nil)
	}},
	{"exclusive-consumer", func(channel, confirming *amqp.Channel) {
		a := queue(channel, nil)
		ok(channel.Consume(a, "", false, true, false, false, nil))
		_, err := confirming.Consume(a, "", false, false, false, false, nil)
		refused(err, 403, fmt.Sprintf("ACCESS_REFUSED - queue '%s' in vhost '/' in exclusive use", a))
	}},
	{"consumer-priority", func(channel, confirming *amqp.Channel) {
		a := queue(channel, nil)
		low := consume(channel, a, true)
		high := ok(channel.Consume(a, "", true, false, false, false, amqp.Table{"x-priority": 10}))
		send(confirming, a, "1", "2", "3")
		for i := 0; i < 3; i++ {
			next(high, "a delivery")
		}
		equal(len(low), 0)
	}},
	{"unknown-delivery-tag", func(channel, _ *amqp.Channel) {
		closed := channel.NotifyClose(make(chan *amqp.Error, 1))
		must(channel.Ack(99, false))
		refused(next(closed, "the end"), 406, "PRECONDITION_FAILED - unknown delivery tag 99")
	}},
	{"message-ttl", func(channel, confirming *amqp.Channel) {
		dead := queue(channel, nil)
		a := queue(channel, amqp.Table{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead})
		publish(confirming, "", a, amqp.Publishing{Expiration: "20", Headers: amqp.Table{"kept": "yes"}})
		m := get(channel, dead, true)
		death := deaths(m)
		if at := death["time"].(time.Time); time.Since(at) > time.Minute {
			panic(at)
		}
		delete(death, "time")
		equal(death, amqp.Table{"queue": a, "exchange": "", "routing-keys": []any{a}, "reason": "expired", "count": int64(1),
			"original-expiration": "20"})
		equal([]any{m.Headers["kept"], m.Headers["x-first-death-queue"], m.Headers["x-first-death-reason"], m.Expiration},
			[]any{"yes", a, "expired", ""})
	}},
	{"dead-letter-rejected", func(channel, confirming *amqp.Channel) {
		dlx, a := exchange(channel, "direct"), name("q")
		dead := queue(channel, amqp.Table{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": a})
		must(channel.QueueBind(dead, "dead", dlx, false, nil))
		ok(channel.QueueDeclare(a, false, false, true, false,
			amqp.Table{"x-dead-letter-exchange": dlx, "x-dead-letter-routing-key": "dead"}))
		send(confirming, a, "m")
		for _, each := range []string{a, dead, a} {
			rejected := get(channel, each, false)
			must(rejected.Reject(false))
		}
		m := get(channel, dead, true)
		equal([]any{m.Exchange, m.RoutingKey}, []any{dlx, "dead"})
		for i, expected := range [][]any{{a, "rejected", int64(2), []any{a}}, {dead, "rejected", int64(1), []any{"dead"}}} {
			death := m.Headers["x-death"].([]any)[i].(amqp.Table)
			equal([]any{death["queue"], death["reason"], death["count"], death["routing-keys"]}, expected)
		}
	}},
	{"max-length", func(channel, confirming *amqp.Channel) {
		dead := queue(channel, nil)
		a := queue(channel, amqp.Table{"x-max-length": 2, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead})
		send(confirming, a, "1", "2", "3")
		dropped := get(channel, dead, true)
		equal([]any{string(dropped.Body), deaths(dropped)["reason"]}, []any{"1", "maxlen"})
		equal(string(get(channel, a, true).Body), "2")
	}},
	{"priority", func(channel, confirming *amqp.Channel) {
		a := queue(channel, amqp.Table{"x-max-priority": 5})
		for _, level := range []uint8{0, 1, 5, 3, 9} {
			publish(confirming, "", a, amqp.Publishing{Priority: level, Body: []byte{'0' + level}})
		}
		order := ""
		for i := 0; i < 5; i++ {
			order += string(get(channel, a, true).Body)
		}
		equal(order, "59310")
	}},
	{"tx-commit", func(channel, _ *amqp.Channel) {
		a, b := queue(channel, nil), queue(channel, nil)
		send(channel, b, "taken")
		taken := get(channel, b, false)
		must(channel.Tx())
		send(channel, a, "1", "2")
		must(taken.Ack(false))
		isEmpty(open(), a)
		must(channel.TxCommit())
		equal(string(get(channel, a, true).Body), "1")
		must(channel.TxCommit())
		equal(ok(channel.QueueDelete(b, false, false, false)), 0)
	}},
	{"tx-rollback", func(channel, _ *amqp.Channel) {
		a, b := queue(channel, nil), queue(channel, nil)
		send(channel, b, "taken")
		taken := get(channel, b, false)
		must(channel.Tx())
		send(channel, a, "1")
		must(taken.Ack(false))
		must(channel.TxRollback())
		isEmpty(channel, a)
		must(taken.Nack(false, true))
		must(channel.TxCommit())
		equal(string(get(channel, b, true).Body), "taken")
		refused(channel.Confirm(false), 406, "PRECONDITION_FAILED - cannot switch from tx to confirm mode")
	}},
	{"direct-reply-to", func(channel, _ *amqp.Channel) {
		requests := queue(channel, nil)
		caller := open()
		replies := consume(caller, "amq.rabbitmq.reply-to", true)
		publish(caller, "", requests, amqp.Publishing{ReplyTo: "amq.rabbitmq.reply-to", CorrelationId: "42", Body: []byte("hey")})
		request := get(channel, requests, true)
		publish(channel, "", request.ReplyTo, amqp.Publishing{CorrelationId: request.CorrelationId, Body: append(request.Body, '!')})
		reply := next(replies, "the reply")
		equal([]any{string(reply.Body), reply.CorrelationId}, []any{"hey!", "42"})
	}},
	{"rpc-queue", func(channel, _ *amqp.Channel) {
		requests := queue(channel, nil)
		served := consume(channel, requests, false)
		go func() {
			for m := range served {
				_ = channel.PublishWithContext(background, "", m.ReplyTo, false, false, amqp.Publishing{CorrelationId: m.CorrelationId, Body: m.Body})
				_ = m.Ack(false)
			}
		}()
		caller := open()
		answered := ok(caller.QueueDeclare("", false, false, true, false, nil)).Name
		replies := consume(caller, answered, true)
		for i := 0; i < 10; i++ {
			text := fmt.Sprint(i)
			publish(caller, "", requests, amqp.Publishing{ReplyTo: answered, CorrelationId: text, Body: []byte(text)})
		}
		for i := 0; i < 10; i++ {
			reply := next(replies, "a reply")
			equal(string(reply.Body), reply.CorrelationId)
		}
	}},
	{"closed-channel", func(channel, _ *amqp.Channel) {
		closed := channel.NotifyClose(make(chan *amqp.Error, 1))
		none := name("none")
		must(channel.PublishWithContext(background, none, "k", false, false, amqp.Publishing{}))
		refused(next(closed, "the end"), 404, fmt.Sprintf("NOT_FOUND - no exchange '%s' in vhost '/'", none))
		queue(open(), nil)
	}},
	{"closed-connection", func(_, _ *amqp.Channel) {
		opened := dial(amqp.Config{})
		closed := opened.NotifyClose(make(chan *amqp.Error, 1))
		must(ok(opened.Channel()).PublishWithContext(background, "", "k", false, true, amqp.Publishing{}))
		refused(next(closed, "the end"), 540, "NOT_IMPLEMENTED - immediate=true")
		must(dial(amqp.Config{}).Close())
	}},
	{"recovery", func(_, confirming *amqp.Channel) {
		through := login()
		through.Host = "127.0.0.1:" + relayPort
		recovering := ok(amqp.DialConfig(through.String(), amqp.Config{Recovery: &amqp.Recovery{
			ReconnectionConfig: &amqp.ReconnectionConfig{MaxRetryCount: 50, RetryInterval: 50 * time.Millisecond},
		}}))
		own := ok(recovering.Channel())
		named := queue(own, nil)
		deliveries := consume(own, named, true)
		send(own, named, "before")
		equal(string(next(deliveries, "the first message").Body), "before")
		say(map[string]string{"ask": "cut"})
		ok(answers.ReadString('\n'))
		until(func() bool { // exclusive to the recovering connection, so it tells when that is back
			channel := open()
			_, err := channel.QueueDeclarePassive(named, false, false, true, false, nil)
			var told *amqp.Error
			return errors.As(err, &told) && told.Code == 405
		}, "the queue is back")
		send(confirming, named, "after")
		equal(string(next(deliveries, "a message after the cut").Body), "after")
		must(recovering.Close())
	}},
}

func attempt(each step) {
	defer func() {
		if reason := recover(); reason != nil {
			say(map[string]string{"step": each.name, "outcome": "failed", "detail": fmt.Sprintf("%v\n%s", reason, debug.Stack())})
		}
	}()
	if connection == nil || connection.IsClosed() {
		properties := amqp.NewConnectionProperties()
		properties.SetClientConnectionName(prefix)
		connection = dial(amqp.Config{Properties: properties})
	}
	channel, confirming := open(), open()
	must(confirming.Confirm(false))
	each.run(channel, confirming)
	_, _ = channel.Close(), confirming.Close()
	say(map[string]string{"step": each.name, "outcome": "ok"})
}

func main() {
	version := "unknown"
	if build, there := debug.ReadBuildInfo(); there {
		for _, module := range build.Deps {
			version = strings.TrimPrefix(module.Version, "v")
		}
	}
	say(map[string]string{"client": "amqp091-go", "version": version})
	quiet := dial(amqp.Config{Heartbeat: time.Second})
	since := time.Now()
	for _, each := range steps {
		attempt(each)
	}
	attempt(step{"idle", func(_, _ *amqp.Channel) {
		time.Sleep(time.Until(since.Add(3500 * time.Millisecond)))
		equal(quiet.IsClosed(), false)
		queue(ok(quiet.Channel()), nil)
	}})
	_, _ = connection.Close(), quiet.Close()
}
