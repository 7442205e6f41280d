//! Uses most of lapin's API against a broker: one line of JSON for each step (see ../../../programs.py).

use futures_lite::{FutureExt, StreamExt};
use lapin::{
    message::{BasicGetMessage, Delivery},
    options::*,
    types::{AMQPValue, ByteArray, DecimalValue, FieldTable, ShortString},
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer, ErrorKind, Event, ExchangeKind,
};
use std::{
    fmt::Debug,
    panic::AssertUnwindSafe,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};
use tokio::time::{sleep, timeout};

type Failure = Box<dyn std::error::Error>;
type Outcome = Result<(), Failure>;

const WAIT: Duration = Duration::from_secs(10);
const STEPS: [&str; 54] = [
    "connect", "server-properties", "wrong-password", "unknown-vhost", "many-channels", "blocked-listener", "update-secret",
    "declare-queue", "queue-arguments", "unknown-queue", "other-properties", "locked-queue", "exchange-types", "route-direct",
    "route-fanout", "route-topic", "route-headers", "exchange-to-exchange", "alternate-exchange", "default-exchange", "purge-delete",
    "delete-conditions", "properties", "headers", "large", "empty", "mandatory", "confirm", "confirm-many", "confirm-nack", "get",
    "consume-ack", "consume-no-ack", "nack", "reject", "recover", "prefetch", "cancel", "server-cancel", "exclusive-consumer",
    "consumer-priority", "unknown-delivery-tag", "message-ttl", "dead-letter-rejected", "max-length", "priority", "tx-commit",
    "tx-rollback", "direct-reply-to", "rpc-queue", "closed-channel", "closed-connection", "recovery", "idle",
];
const VERSION: &str = "4.12.3"; // as in Cargo.toml; the library does not tell
static COUNT: AtomicU32 = AtomicU32::new(0);

struct Program {
    url: String,
    prefix: String,
    relay_port: String,
    quiet: Connection,
    since: Instant,
}

fn say(line: serde_json::Value) {
    println!("{line}");
}

fn fail<T>(text: impl Into<String>) -> Result<T, Failure> {
    Err(text.into().into())
}

fn equal<T: PartialEq + Debug>(got: T, expected: T) -> Outcome {
    if got == expected { Ok(()) } else { fail(format!("got {got:?} instead of {expected:?}")) }
}

fn told(error: &lapin::Error, code: u16, text: &str) -> Outcome {
    match error.kind() {
        ErrorKind::ProtocolError(error) if error.get_id() == code && error.get_message().as_str().starts_with(text) => Ok(()),
        _ => fail(format!("got {error} instead of {code} {text}")),
    }
}

fn refused<T>(result: lapin::Result<T>, code: u16, text: &str) -> Outcome {
    match result {
        Ok(_) => fail(format!("not refused: {text}")),
        Err(error) => told(&error, code, text),
    }
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

fn int(value: i32) -> AMQPValue {
    AMQPValue::LongInt(value)
}

fn table(pairs: &[(&str, AMQPValue)]) -> FieldTable {
    let mut table = FieldTable::default();
    for (key, value) in pairs {
        table.insert((*key).into(), value.clone());
    }
    table
}

fn none() -> FieldTable {
    FieldTable::default()
}

fn exclusive() -> QueueDeclareOptions {
    QueueDeclareOptions { exclusive: true, ..Default::default() }
}

fn passive() -> QueueDeclareOptions {
    QueueDeclareOptions { passive: true, ..Default::default() }
}

async fn queue_with(channel: &Channel, program: &Program, arguments: FieldTable) -> Result<ShortString, Failure> {
    Ok(channel.queue_declare(program.name("q"), exclusive(), arguments).await?.name().clone())
}

async fn queue(channel: &Channel, program: &Program) -> Result<ShortString, Failure> {
    queue_with(channel, program, none()).await
}

async fn exchange(channel: &Channel, program: &Program, kind: ExchangeKind) -> Result<ShortString, Failure> {
    let named = program.name("x");
    let options = ExchangeDeclareOptions { auto_delete: true, ..Default::default() };
    channel.exchange_declare(named.clone(), kind, options, none()).await?;
    Ok(named)
}

async fn publish(channel: &Channel, to: &ShortString, key: &str, body: &[u8], properties: BasicProperties) -> Outcome {
    let confirm = channel.basic_publish(to.clone(), key.into(), Default::default(), body, properties).await?;
    match timeout(WAIT, confirm).await?? {
        Confirmation::Nack(_) => fail("nacked"),
        _ => Ok(()),
    }
}

async fn send(channel: &Channel, to: &ShortString, bodies: &[&str]) -> Outcome {
    for body in bodies {
        publish(channel, &"".into(), to.as_str(), body.as_bytes(), Default::default()).await?;
    }
    Ok(())
}

async fn try_get(channel: &Channel, from: &ShortString) -> Result<Option<BasicGetMessage>, Failure> {
    Ok(channel.basic_get(from.clone(), BasicGetOptions { no_ack: true }).await?)
}

async fn get(channel: &Channel, from: &ShortString, no_ack: bool) -> Result<BasicGetMessage, Failure> {
    let end = Instant::now() + WAIT;
    while Instant::now() < end {
        if let Some(message) = channel.basic_get(from.clone(), BasicGetOptions { no_ack }).await? {
            return Ok(message);
        }
        sleep(Duration::from_millis(10)).await;
    }
    fail(format!("waited too long for a message in {from}"))
}

async fn counts(channel: &Channel, queue: &ShortString) -> Result<(u32, u32), Failure> {
    let counted = channel.queue_declare(queue.clone(), passive(), none()).await?;
    Ok((counted.message_count(), counted.consumer_count()))
}

async fn consume(channel: &Channel, from: &ShortString, no_ack: bool) -> Result<Consumer, Failure> {
    let options = BasicConsumeOptions { no_ack, ..Default::default() };
    Ok(channel.basic_consume(from.clone(), "".into(), options, none()).await?)
}

async fn next(consumer: &mut Consumer) -> Result<Delivery, Failure> {
    match timeout(WAIT, consumer.next()).await? {
        Some(delivery) => Ok(delivery?),
        None => fail("the consumer has ended"),
    }
}

/// Nothing more than what was delivered before something that came later.
async fn is_quiet(consumer: &mut Consumer) -> Outcome {
    match timeout(Duration::from_millis(50), consumer.next()).await {
        Err(_) => Ok(()),
        Ok(delivery) => fail(format!("not expected: {delivery:?}")),
    }
}

fn body(delivery: &Delivery) -> String {
    String::from_utf8_lossy(&delivery.data).into_owned()
}

fn headers(delivery: &Delivery) -> FieldTable {
    delivery.properties.headers().clone().unwrap_or_default()
}

fn death(delivery: &Delivery, index: usize, field: &str) -> Option<AMQPValue> {
    match headers(delivery).inner().get("x-death")? {
        AMQPValue::FieldArray(deaths) => match deaths.as_slice().get(index)? {
            AMQPValue::FieldTable(death) => death.inner().get(field).cloned(),
            _ => None,
        },
        _ => None,
    }
}

/// Who of the queues gets the message?
async fn routed(channel: &Channel, source: &ShortString, key: &str, headers: FieldTable, queues: &[&ShortString]) -> Result<String, Failure> {
    publish(channel, source, key, b"m", BasicProperties::default().with_headers(headers)).await?;
    let mut reached = String::new();
    for (each, letter) in queues.iter().zip('a'..) {
        if try_get(channel, each).await?.is_some() {
            reached.push(letter);
        }
    }
    Ok(reached)
}

impl Program {
    fn name(&self, word: &str) -> ShortString {
        format!("{}.{word}.{}", self.prefix, COUNT.fetch_add(1, Ordering::Relaxed)).into()
    }

    async fn connect(&self, query: &str) -> lapin::Result<Connection> {
        Connection::connect(&format!("{}{query}", self.url), ConnectionProperties::default()).await
    }

    async fn dead_lettering(&self, channel: &Channel, more: &[(&str, AMQPValue)]) -> Result<(ShortString, ShortString), Failure> {
        let dead = queue(channel, self).await?;
        let mut arguments = table(more);
        arguments.insert("x-dead-letter-exchange".into(), text(""));
        arguments.insert("x-dead-letter-routing-key".into(), text(dead.as_str()));
        Ok((dead, queue_with(channel, self, arguments).await?))
    }

    async fn run(&self, step: &str, connection: &Connection, channel: &Channel, confirming: &Channel) -> Outcome {
        let default: ShortString = "".into();
        match step {
            "connect" => {
                let properties = ConnectionProperties::default().with_connection_name(self.prefix.as_str().into());
                let opened = Connection::connect(&format!("{}?heartbeat=7&frame_max=8192&channel_max=50", self.url), properties).await?;
                let agreed = opened.configuration();
                equal((agreed.heartbeat(), agreed.frame_max(), agreed.channel_max()), (7, 8192, 50))?;
                equal(opened.status().connected(), true)?;
                opened.close(200, "bye".into()).await?;
            }
            "server-properties" => return fail("absent: the server's properties are not shown"),
            "wrong-password" => {
                let wrong = self.url.replacen(":guest@", ":wrong@", 1);
                let result = Connection::connect(&wrong, ConnectionProperties::default()).await;
                refused(result, 403, "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN")?;
            }
            "unknown-vhost" => {
                let wrong = self.url.replacen("/%2F", "/nowhere", 1);
                let result = Connection::connect(&wrong, ConnectionProperties::default()).await;
                refused(result, 530, "NOT_ALLOWED - vhost nowhere not found")?;
            }
            "many-channels" => {
                let opened = self.connect("").await?;
                let mut channels = Vec::new();
                for _ in 0..100 {
                    channels.push(opened.create_channel().await?);
                }
                for each in &channels {
                    queue(each, self).await?;
                }
                for each in &channels[50..] {
                    each.close(200, "bye".into()).await?;
                }
                queue(&channels[0], self).await?;
                opened.close(200, "bye".into()).await?;
            }
            "blocked-listener" => {
                let _events = connection.events_listener().filter(|event| matches!(event, Event::ConnectionBlocked(_)));
                equal(connection.status().blocked(), false)?;
            }
            "update-secret" => connection.update_secret("guest".into(), "because".into()).await?,
            "declare-queue" => {
                let named = queue(channel, self).await?;
                let again = channel.queue_declare(named.clone(), exclusive(), none()).await?;
                equal((again.message_count(), again.consumer_count()), (0, 0))?;
                send(confirming, &named, &["one"]).await?;
                equal(counts(channel, &named).await?, (1, 0))?;
                let own = channel.queue_declare("".into(), exclusive(), none()).await?;
                equal(own.name().as_str().starts_with("amq.gen-"), true)?;
            }
            "queue-arguments" => {
                let arguments = table(&[
                    ("x-message-ttl", int(60000)), ("x-expires", AMQPValue::LongLongInt(60000)), ("x-max-length", int(10)),
                    ("x-max-length-bytes", AMQPValue::ShortInt(1000)), ("x-overflow", text("reject-publish")),
                    ("x-dead-letter-exchange", text("")), ("x-dead-letter-routing-key", text("k")),
                    ("x-max-priority", AMQPValue::ShortShortInt(5)), ("x-single-active-consumer", AMQPValue::Boolean(true)),
                    ("x-queue-mode", text("lazy")),
                ]);
                let named = queue_with(channel, self, arguments.clone()).await?;
                channel.queue_declare(named, exclusive(), arguments).await?;
            }
            "unknown-queue" => {
                let unknown = self.name("none");
                let result = channel.queue_declare(unknown.clone(), passive(), none()).await;
                refused(result, 404, &format!("NOT_FOUND - no queue '{unknown}' in vhost '/'"))?;
                queue(&connection.create_channel().await?, self).await?;
            }
            "other-properties" => {
                let named = queue_with(channel, self, table(&[("x-message-ttl", int(1000))])).await?;
                let result = channel.queue_declare(named.clone(), exclusive(), table(&[("x-message-ttl", int(2000))])).await;
                refused(result, 406, &format!(
                    "PRECONDITION_FAILED - inequivalent arg 'x-message-ttl' for queue '{named}' in vhost '/': received '2000' but current is '1000'"
                ))?;
            }
            "locked-queue" => {
                let named = queue(channel, self).await?;
                let other = self.connect("").await?;
                let result = other.create_channel().await?.queue_declare(named.clone(), passive(), none()).await;
                refused(result, 405, &format!("RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '{named}' in vhost '/'"))?;
                other.close(200, "bye".into()).await?;
            }
            "exchange-types" => {
                for kind in [ExchangeKind::Direct, ExchangeKind::Fanout, ExchangeKind::Topic, ExchangeKind::Headers] {
                    let named = self.name("x");
                    let options = ExchangeDeclareOptions { durable: true, internal: kind == ExchangeKind::Fanout, ..Default::default() };
                    for _ in 0..2 {
                        channel.exchange_declare(named.clone(), kind.clone(), options, table(&[("note", int(1))])).await?;
                    }
                    let passive = ExchangeDeclareOptions { passive: true, ..Default::default() };
                    channel.exchange_declare(named.clone(), kind, passive, none()).await?;
                    channel.exchange_delete(named, ExchangeDeleteOptions { if_unused: true, ..Default::default() }).await?;
                }
                let unknown = self.name("none");
                let passive = ExchangeDeclareOptions { passive: true, ..Default::default() };
                let result = channel.exchange_declare(unknown.clone(), ExchangeKind::Direct, passive, none()).await;
                refused(result, 404, &format!("NOT_FOUND - no exchange '{unknown}' in vhost '/'"))?;
            }
            "route-direct" => {
                let source = exchange(channel, self, ExchangeKind::Direct).await?;
                let (a, b) = (queue(channel, self).await?, queue(channel, self).await?);
                for (to, key) in [(&a, "red"), (&b, "red"), (&b, "blue")] {
                    channel.queue_bind(to.clone(), source.clone(), key.into(), Default::default(), none()).await?;
                }
                equal(routed(confirming, &source, "red", none(), &[&a, &b]).await?.as_str(), "ab")?;
                equal(routed(confirming, &source, "blue", none(), &[&a, &b]).await?.as_str(), "b")?;
                channel.queue_unbind(b.clone(), source.clone(), "red".into(), none()).await?;
                equal(routed(confirming, &source, "red", none(), &[&a, &b]).await?.as_str(), "a")?;
            }
            "route-fanout" => {
                let source = exchange(channel, self, ExchangeKind::Fanout).await?;
                let (a, b) = (queue(channel, self).await?, queue(channel, self).await?);
                for (to, key) in [(&a, ""), (&b, "ignored")] {
                    channel.queue_bind(to.clone(), source.clone(), key.into(), Default::default(), none()).await?;
                }
                equal(routed(confirming, &source, "any", none(), &[&a, &b]).await?.as_str(), "ab")?;
            }
            "route-topic" => {
                let source = exchange(channel, self, ExchangeKind::Topic).await?;
                let (a, b, c) = (queue(channel, self).await?, queue(channel, self).await?, queue(channel, self).await?);
                for (to, key) in [(&a, "*.orange.*"), (&b, "lazy.#"), (&c, "#")] {
                    channel.queue_bind(to.clone(), source.clone(), key.into(), Default::default(), none()).await?;
                }
                for (key, reached) in [("quick.orange.fox", "ac"), ("lazy.orange.elephant", "abc"), ("lazy", "bc"), ("", "c")] {
                    equal(routed(confirming, &source, key, none(), &[&a, &b, &c]).await?.as_str(), reached)?;
                }
            }
            "route-headers" => {
                let source = exchange(channel, self, ExchangeKind::Headers).await?;
                let (a, b) = (queue(channel, self).await?, queue(channel, self).await?);
                for (to, word) in [(&a, "all"), (&b, "any")] {
                    let arguments = table(&[("x-match", text(word)), ("size", int(1)), ("colour", text("red"))]);
                    channel.queue_bind(to.clone(), source.clone(), "".into(), Default::default(), arguments).await?;
                }
                let (red, one, two) = (("colour", text("red")), ("size", int(1)), ("size", int(2)));
                equal(routed(confirming, &source, "", table(&[one, red.clone()]), &[&a, &b]).await?.as_str(), "ab")?;
                equal(routed(confirming, &source, "", table(&[two.clone(), red]), &[&a, &b]).await?.as_str(), "b")?;
                equal(routed(confirming, &source, "", table(&[two]), &[&a, &b]).await?.as_str(), "")?;
            }
            "exchange-to-exchange" => {
                let source = exchange(channel, self, ExchangeKind::Topic).await?;
                let (target, a) = (exchange(channel, self, ExchangeKind::Fanout).await?, queue(channel, self).await?);
                channel.queue_bind(a.clone(), target.clone(), "".into(), Default::default(), none()).await?;
                for key in ["kept", "x.*"] {
                    // the first one is there so that the exchange is not deleted with the other
                    channel.exchange_bind(target.clone(), source.clone(), key.into(), Default::default(), none()).await?;
                }
                equal(routed(confirming, &source, "x.1", none(), &[&a]).await?.as_str(), "a")?;
                channel.exchange_unbind(target, source.clone(), "x.*".into(), Default::default(), none()).await?;
                equal(routed(confirming, &source, "x.1", none(), &[&a]).await?.as_str(), "")?;
            }
            "alternate-exchange" => {
                let (spare, a) = (exchange(channel, self, ExchangeKind::Fanout).await?, queue(channel, self).await?);
                let source = self.name("x");
                let arguments = table(&[("alternate-exchange", text(spare.as_str()))]);
                channel.exchange_declare(source.clone(), ExchangeKind::Direct, Default::default(), arguments).await?;
                channel.queue_bind(a.clone(), spare, "".into(), Default::default(), none()).await?;
                equal(routed(confirming, &source, "unrouted", none(), &[&a]).await?.as_str(), "a")?;
                channel.exchange_delete(source, Default::default()).await?;
            }
            "default-exchange" => {
                let a = queue(channel, self).await?;
                equal(routed(confirming, &default, a.as_str(), none(), &[&a]).await?.as_str(), "a")?;
                let result = channel.queue_bind(a, "".into(), "k".into(), Default::default(), none()).await;
                refused(result, 403, "ACCESS_REFUSED - operation not permitted on the default exchange")?;
            }
            "purge-delete" => {
                let a = queue(confirming, self).await?;
                send(confirming, &a, &["1", "2", "3", "4", "5"]).await?;
                equal(confirming.queue_purge(a.clone(), Default::default()).await?, 5)?;
                send(confirming, &a, &["1"]).await?;
                equal(confirming.queue_delete(a.clone(), Default::default()).await?, 1)?;
                equal(confirming.queue_delete(a, Default::default()).await?, 0)?;
            }
            "delete-conditions" => {
                let a = queue(channel, self).await?;
                send(confirming, &a, &["m"]).await?;
                let if_empty = QueueDeleteOptions { if_empty: true, ..Default::default() };
                let result = connection.create_channel().await?.queue_delete(a.clone(), if_empty).await;
                refused(result, 406, &format!("PRECONDITION_FAILED - queue '{a}' in vhost '/' not empty"))?;
                let _consumer = consume(channel, &a, false).await?;
                let if_unused = QueueDeleteOptions { if_unused: true, ..Default::default() };
                let result = connection.create_channel().await?.queue_delete(a.clone(), if_unused).await;
                refused(result, 406, &format!("PRECONDITION_FAILED - queue '{a}' in vhost '/' in use"))?;
            }
            "properties" => {
                let a = queue(channel, self).await?;
                let sent = BasicProperties::default().with_content_type("application/json".into()).with_content_encoding("utf-8".into())
                    .with_headers(table(&[("h", int(1))])).with_delivery_mode(2).with_priority(7).with_correlation_id("c-1".into())
                    .with_reply_to("r".into()).with_expiration("60000".into()).with_message_id("m-1".into())
                    .with_timestamp(1_700_000_000).with_type("t".into()).with_user_id("guest".into()).with_app_id("app".into())
                    .with_cluster_id("cluster".into());
                publish(confirming, &default, a.as_str(), b"{}", sent.clone()).await?;
                let got = get(channel, &a, true).await?.delivery;
                equal(got.properties, sent)?;
                equal((got.exchange, got.routing_key, got.redelivered), (default, a, false))?;
            }
            "headers" => {
                let a = queue(channel, self).await?;
                let list = vec![int(1), text("two"), AMQPValue::FieldArray(vec![AMQPValue::LongLongInt(3)].into()), AMQPValue::FieldTable(table(&[("four", int(4))]))];
                let sent = table(&[
                    ("text", text("gr\u{fc}\u{df} \u{1f407}")), ("empty", text("")), ("yes", AMQPValue::Boolean(true)),
                    ("signed", AMQPValue::ShortShortInt(-100)), ("unsigned", AMQPValue::ShortShortUInt(200)), ("short", AMQPValue::ShortInt(-30000)),
                    ("ushort", AMQPValue::ShortUInt(60000)), ("int", int(2_000_000_000)), ("uint", AMQPValue::LongUInt(4_000_000_000)),
                    ("long", AMQPValue::LongLongInt(1 << 62)), ("float", AMQPValue::Float(0.25)), ("double", AMQPValue::Double(1.1)),
                    ("decimal", AMQPValue::DecimalValue(DecimalValue { scale: 2, value: 314 })), ("nothing", AMQPValue::Void),
                    ("bytes", AMQPValue::ByteArray(ByteArray::from(&[0u8, 255, 1][..]))), ("time", AMQPValue::Timestamp(1_700_000_000)),
                    ("list", AMQPValue::FieldArray(list.into())), ("table", AMQPValue::FieldTable(table(&[("deep", AMQPValue::FieldTable(none()))]))),
                ]);
                publish(confirming, &default, a.as_str(), b"", BasicProperties::default().with_headers(sent.clone())).await?;
                equal(headers(&get(channel, &a, true).await?.delivery), sent)?;
            }
            "large" => {
                let (a, content) = (queue(channel, self).await?, "the quick brown fox ".repeat(1 << 16));
                publish(confirming, &default, a.as_str(), content.as_bytes(), Default::default()).await?;
                equal(get(channel, &a, true).await?.data == content.as_bytes(), true)?;
                let small = self.connect("?frame_max=4096").await?;
                equal(small.configuration().frame_max(), 4096)?;
                let again = small.create_channel().await?;
                let own = queue(&again, self).await?;
                again.confirm_select(Default::default()).await?;
                publish(&again, &default, own.as_str(), content.as_bytes(), Default::default()).await?;
                equal(get(&again, &own, true).await?.data == content.as_bytes(), true)?;
                small.close(200, "bye".into()).await?;
            }
            "empty" => {
                let a = queue(channel, self).await?;
                send(confirming, &a, &[""]).await?;
                equal(get(channel, &a, true).await?.data.len(), 0)?;
            }
            "mandatory" => {
                let options = BasicPublishOptions { mandatory: true, ..Default::default() };
                let properties = BasicProperties::default().with_message_id("m".into());
                let confirm = confirming.basic_publish(default, self.name("none"), options, b"lost", properties).await?;
                match timeout(WAIT, confirm).await?? {
                    Confirmation::Ack(Some(back)) => {
                        equal((back.reply_code, back.reply_text.as_str(), body(&back)), (312, "NO_ROUTE", "lost".to_owned()))?;
                        equal(back.properties.message_id().clone(), Some("m".into()))?;
                    }
                    other => return fail(format!("not returned: {other:?}")),
                }
            }
            "confirm" => {
                let a = queue(channel, self).await?;
                let properties = BasicProperties::default().with_delivery_mode(2);
                let confirm = confirming.basic_publish(default, a.clone(), Default::default(), b"m", properties).await?;
                equal(timeout(WAIT, confirm).await??, Confirmation::Ack(None))?;
                equal(counts(channel, &a).await?, (1, 0))?;
            }
            "confirm-many" => {
                let (a, mut confirms) = (queue(channel, self).await?, Vec::new());
                for _ in 0..1000 {
                    confirms.push(confirming.basic_publish(default.clone(), a.clone(), Default::default(), b"m", Default::default()).await?);
                }
                for confirm in confirms {
                    equal(timeout(WAIT, confirm).await??, Confirmation::Ack(None))?;
                }
                equal(counts(channel, &a).await?, (1000, 0))?;
                confirming.basic_publish(default, a, Default::default(), b"m", Default::default()).await?;
                equal(timeout(WAIT, confirming.wait_for_confirms()).await??.len(), 0)?;
            }
            "confirm-nack" => {
                let a = queue_with(channel, self, table(&[("x-max-length", int(1)), ("x-overflow", text("reject-publish"))])).await?;
                send(confirming, &a, &["fits"]).await?;
                let confirm = confirming.basic_publish(default, a, Default::default(), b"does not", Default::default()).await?;
                equal(timeout(WAIT, confirm).await??, Confirmation::Nack(None))?;
            }
            "get" => {
                let a = queue(channel, self).await?;
                equal(try_get(channel, &a).await?.is_none(), true)?;
                send(confirming, &a, &["1", "2"]).await?;
                let first = get(channel, &a, false).await?;
                equal((body(&first), first.message_count), ("1".to_owned(), 1))?;
                first.ack(Default::default()).await?;
                equal(get(channel, &a, true).await?.message_count, 0)?;
            }
            "consume-ack" => {
                let a = queue(channel, self).await?;
                let mut consumer = channel.basic_consume(a.clone(), "mine".into(), Default::default(), none()).await?;
                equal(consumer.tag().as_str(), "mine")?;
                send(confirming, &a, &["1", "2", "3", "4", "5"]).await?;
                for tag in 1..=5 {
                    let delivery = next(&mut consumer).await?;
                    equal((delivery.delivery_tag, body(&delivery)), (tag, tag.to_string()))?;
                }
                channel.basic_ack(3, BasicAckOptions { multiple: true }).await?;
                channel.basic_ack(5, BasicAckOptions { multiple: false }).await?;
                channel.close(200, "bye".into()).await?;
                let left = get(confirming, &a, false).await?;
                equal((body(&left), left.redelivered, left.message_count), ("4".to_owned(), true, 0))?;
            }
            "consume-no-ack" => {
                let a = queue(channel, self).await?;
                let mut consumer = consume(channel, &a, true).await?;
                send(confirming, &a, &["1", "2", "3"]).await?;
                for _ in 0..3 {
                    next(&mut consumer).await?;
                }
                channel.close(200, "bye".into()).await?;
                equal(try_get(confirming, &a).await?.is_none(), true)?;
            }
            "nack" => {
                let a = queue(channel, self).await?;
                send(confirming, &a, &["1", "2", "3"]).await?;
                get(channel, &a, false).await?;
                let (second, third) = (get(channel, &a, false).await?, get(channel, &a, false).await?);
                second.nack(BasicNackOptions { multiple: true, requeue: true }).await?;
                third.nack(BasicNackOptions { multiple: false, requeue: false }).await?;
                for text in ["1", "2"] {
                    let again = get(channel, &a, true).await?;
                    equal((body(&again), again.redelivered), (text.to_owned(), true))?;
                }
                equal(try_get(channel, &a).await?.is_none(), true)?;
            }
            "reject" => {
                let a = queue(channel, self).await?;
                send(confirming, &a, &["m"]).await?;
                get(channel, &a, false).await?.reject(BasicRejectOptions { requeue: true }).await?;
                let again = get(channel, &a, false).await?;
                equal(again.redelivered, true)?;
                again.reject(BasicRejectOptions { requeue: false }).await?;
                equal(try_get(channel, &a).await?.is_none(), true)?;
            }
            "recover" => {
                let a = queue(channel, self).await?;
                send(confirming, &a, &["m"]).await?;
                let mut consumer = consume(channel, &a, false).await?;
                next(&mut consumer).await?;
                channel.basic_recover(BasicRecoverOptions { requeue: true }).await?;
                equal(next(&mut consumer).await?.redelivered, true)?;
            }
            "prefetch" => {
                let a = queue(channel, self).await?;
                send(confirming, &a, &["1", "2", "3", "4", "5"]).await?;
                channel.basic_qos(2, BasicQosOptions { global: false }).await?;
                let mut consumer = consume(channel, &a, false).await?;
                next(&mut consumer).await?;
                let second = next(&mut consumer).await?;
                equal(counts(confirming, &a).await?, (3, 1))?;
                is_quiet(&mut consumer).await?;
                second.ack(BasicAckOptions { multiple: true }).await?;
                equal(body(&next(&mut consumer).await?), "3".to_owned())?;
                channel.basic_qos(3, BasicQosOptions { global: true }).await?;
            }
            "cancel" => {
                let a = queue(channel, self).await?;
                let mut consumer = consume(channel, &a, false).await?;
                equal(counts(confirming, &a).await?, (0, 1))?;
                channel.basic_cancel(consumer.tag(), Default::default()).await?;
                send(confirming, &a, &["m"]).await?;
                equal(counts(confirming, &a).await?, (1, 0))?;
                equal(timeout(WAIT, consumer.next()).await?.is_none(), true)?;
            }
            "server-cancel" => {
                let a = queue(channel, self).await?;
                let mut consumer = consume(channel, &a, false).await?;
                confirming.queue_delete(a, Default::default()).await?;
                equal(timeout(WAIT, consumer.next()).await?.is_none(), true)?;
                queue(channel, self).await?;
            }
            "exclusive-consumer" => {
                let a = queue(channel, self).await?;
                let alone = BasicConsumeOptions { exclusive: true, ..Default::default() };
                let _consumer = channel.basic_consume(a.clone(), "".into(), alone, none()).await?;
                let result = confirming.basic_consume(a.clone(), "".into(), Default::default(), none()).await;
                refused(result, 403, &format!("ACCESS_REFUSED - queue '{a}' in vhost '/' in exclusive use"))?;
            }
            "consumer-priority" => {
                let a = queue(channel, self).await?;
                let mut low = consume(channel, &a, true).await?;
                let options = BasicConsumeOptions { no_ack: true, ..Default::default() };
                let mut high = channel.basic_consume(a.clone(), "".into(), options, table(&[("x-priority", int(10))])).await?;
                send(confirming, &a, &["1", "2", "3"]).await?;
                for _ in 0..3 {
                    next(&mut high).await?;
                }
                is_quiet(&mut low).await?;
            }
            "unknown-delivery-tag" => {
                let mut consumer = consume(channel, &queue(channel, self).await?, false).await?;
                channel.basic_ack(99, Default::default()).await?;
                match timeout(WAIT, consumer.next()).await? {
                    Some(Err(error)) => told(&error, 406, "PRECONDITION_FAILED - unknown delivery tag 99")?,
                    other => return fail(format!("the consumer does not fail: {other:?}")),
                }
            }
            "message-ttl" => {
                let (dead, a) = self.dead_lettering(channel, &[]).await?;
                let properties = BasicProperties::default().with_expiration("20".into()).with_headers(table(&[("kept", text("yes"))]));
                publish(confirming, &default, a.as_str(), b"m", properties).await?;
                let got = get(channel, &dead, true).await?;
                for (field, value) in [
                    ("queue", text(a.as_str())), ("exchange", text("")), ("reason", text("expired")), ("count", AMQPValue::LongLongInt(1)),
                    ("original-expiration", text("20")), ("routing-keys", AMQPValue::FieldArray(vec![text(a.as_str())].into())),
                ] {
                    equal(death(&got, 0, field), Some(value))?;
                }
                equal(matches!(death(&got, 0, "time"), Some(AMQPValue::Timestamp(_))), true)?;
                for (field, value) in [("kept", "yes"), ("x-first-death-queue", a.as_str()), ("x-first-death-reason", "expired")] {
                    equal(headers(&got).inner().get(field).cloned(), Some(text(value)))?;
                }
                equal(got.properties.expiration().clone(), None)?;
            }
            "dead-letter-rejected" => {
                let (dlx, a) = (exchange(channel, self, ExchangeKind::Direct).await?, self.name("q"));
                let back = table(&[("x-dead-letter-exchange", text("")), ("x-dead-letter-routing-key", text(a.as_str()))]);
                let dead = queue_with(channel, self, back).await?;
                channel.queue_bind(dead.clone(), dlx.clone(), "dead".into(), Default::default(), none()).await?;
                let arguments = table(&[("x-dead-letter-exchange", text(dlx.as_str())), ("x-dead-letter-routing-key", text("dead"))]);
                channel.queue_declare(a.clone(), exclusive(), arguments).await?;
                send(confirming, &a, &["m"]).await?;
                for each in [&a, &dead, &a] {
                    get(channel, each, false).await?.reject(BasicRejectOptions { requeue: false }).await?;
                }
                let got = get(channel, &dead, true).await?.delivery;
                equal((got.exchange.as_str(), got.routing_key.as_str()), (dlx.as_str(), "dead"))?;
                for (index, queue, count) in [(0, &a, 2), (1, &dead, 1)] {
                    equal(death(&got, index, "queue"), Some(text(queue.as_str())))?;
                    equal(death(&got, index, "reason"), Some(text("rejected")))?;
                    equal(death(&got, index, "count"), Some(AMQPValue::LongLongInt(count)))?;
                }
            }
            "max-length" => {
                let (dead, a) = self.dead_lettering(channel, &[("x-max-length", int(2))]).await?;
                send(confirming, &a, &["1", "2", "3"]).await?;
                let dropped = get(channel, &dead, true).await?;
                equal((body(&dropped), death(&dropped, 0, "reason")), ("1".to_owned(), Some(text("maxlen"))))?;
                equal(body(&*get(channel, &a, true).await?), "2".to_owned())?;
            }
            "priority" => {
                let a = queue_with(channel, self, table(&[("x-max-priority", int(5))])).await?;
                for level in [0u8, 1, 5, 3, 9] {
                    let properties = BasicProperties::default().with_priority(level);
                    publish(confirming, &default, a.as_str(), level.to_string().as_bytes(), properties).await?;
                }
                let mut order = String::new();
                for _ in 0..5 {
                    order += &body(&*get(channel, &a, true).await?);
                }
                equal(order.as_str(), "59310")?;
            }
            "tx-commit" | "tx-rollback" => {
                let (a, b) = (queue(channel, self).await?, queue(channel, self).await?);
                send(confirming, &b, &["taken"]).await?;
                let taken = get(channel, &b, false).await?;
                channel.tx_select().await?;
                send(channel, &a, &["1"]).await?;
                taken.ack(Default::default()).await?;
                equal(try_get(confirming, &a).await?.is_none(), true)?;
                if step == "tx-commit" {
                    channel.tx_commit().await?;
                    equal(body(&*get(confirming, &a, true).await?), "1".to_owned())?;
                    equal(confirming.queue_delete(b, Default::default()).await?, 0)?;
                } else {
                    channel.tx_rollback().await?;
                    equal(try_get(confirming, &a).await?.is_none(), true)?;
                    channel.basic_nack(taken.delivery_tag, BasicNackOptions { multiple: false, requeue: true }).await?;
                    channel.tx_commit().await?;
                    equal(body(&*get(confirming, &b, true).await?), "taken".to_owned())?;
                    let result = channel.confirm_select(Default::default()).await;
                    refused(result, 406, "PRECONDITION_FAILED - cannot switch from tx to confirm mode")?;
                }
            }
            "direct-reply-to" => {
                let (requests, caller) = (queue(channel, self).await?, connection.create_channel().await?);
                let mut replies = consume(&caller, &"amq.rabbitmq.reply-to".into(), true).await?;
                let properties = BasicProperties::default().with_reply_to("amq.rabbitmq.reply-to".into()).with_correlation_id("42".into());
                publish(&caller, &default, requests.as_str(), b"hey", properties).await?;
                let request = get(channel, &requests, true).await?;
                let to = request.properties.reply_to().clone().unwrap_or_default();
                let correlation = request.properties.correlation_id().clone().unwrap_or_default();
                publish(channel, &default, to.as_str(), b"hey!", BasicProperties::default().with_correlation_id(correlation)).await?;
                let reply = next(&mut replies).await?;
                equal((body(&reply), reply.properties.correlation_id().clone()), ("hey!".to_owned(), Some("42".into())))?;
            }
            "rpc-queue" => {
                let (requests, caller) = (queue(channel, self).await?, connection.create_channel().await?);
                let answered = caller.queue_declare("".into(), exclusive(), none()).await?.name().clone();
                let (mut served, mut replies) = (consume(channel, &requests, false).await?, consume(&caller, &answered, true).await?);
                for i in 0..10 {
                    let properties = BasicProperties::default().with_reply_to(answered.clone()).with_correlation_id(i.to_string().into());
                    publish(&caller, &default, requests.as_str(), i.to_string().as_bytes(), properties).await?;
                }
                for _ in 0..10 {
                    let request = next(&mut served).await?;
                    let correlation = request.properties.correlation_id().clone().unwrap_or_default();
                    let to = request.properties.reply_to().clone().unwrap_or_default();
                    publish(channel, &default, to.as_str(), &request.data, BasicProperties::default().with_correlation_id(correlation)).await?;
                    request.ack(Default::default()).await?;
                }
                for _ in 0..10 {
                    let reply = next(&mut replies).await?;
                    equal(reply.properties.correlation_id().clone(), Some(body(&reply).into()))?;
                }
            }
            "closed-channel" => {
                let (unknown, mut consumer) = (self.name("none"), consume(channel, &queue(channel, self).await?, false).await?);
                channel.basic_publish(unknown.clone(), "k".into(), Default::default(), b"m", Default::default()).await?;
                match timeout(WAIT, consumer.next()).await? {
                    Some(Err(error)) => told(&error, 404, &format!("NOT_FOUND - no exchange '{unknown}' in vhost '/'"))?,
                    other => return fail(format!("the consumer does not fail: {other:?}")),
                }
                equal(channel.status().connected(), false)?;
                queue(&connection.create_channel().await?, self).await?;
            }
            "closed-connection" => {
                let opened = self.connect("").await?;
                let mut errors = opened.events_listener().filter_map(|event| match event {
                    Event::Error(error) => Some(error),
                    _ => None,
                });
                let options = BasicPublishOptions { immediate: true, ..Default::default() };
                let other = opened.create_channel().await?;
                other.basic_publish(default, "k".into(), options, b"m", Default::default()).await?;
                match timeout(WAIT, errors.next()).await? {
                    Some(error) => told(&error, 540, "NOT_IMPLEMENTED - immediate=true")?,
                    None => return fail("no error was told"),
                }
                self.connect("").await?.close(200, "bye".into()).await?;
            }
            "recovery" => {
                let at = self.url.rfind(':').unwrap_or(0);
                let end = at + self.url[at..].find('/').unwrap_or(0);
                let through = format!("{}:{}{}", &self.url[..at], self.relay_port, &self.url[end..]);
                let recovering = Connection::connect(&through, ConnectionProperties::default().enable_auto_recover()).await?;
                let its = recovering.create_channel().await?;
                let named = queue(&its, self).await?;
                let mut consumer = consume(&its, &named, true).await?;
                send(confirming, &named, &["before"]).await?;
                equal(body(&next(&mut consumer).await?), "before".to_owned())?;
                say(serde_json::json!({"ask": "cut"}));
                let mut line = String::new();
                std::io::stdin().read_line(&mut line)?;
                let end = Instant::now() + WAIT;
                loop {
                    // exclusive to the recovering connection, so it tells when that is back
                    let result = connection.create_channel().await?.queue_declare(named.clone(), passive(), none()).await;
                    match result {
                        Err(error) if told(&error, 405, "").is_ok() => break,
                        _ if Instant::now() > end => return fail("it does not recover"),
                        _ => sleep(Duration::from_millis(20)).await,
                    }
                }
                send(confirming, &named, &["after"]).await?;
                equal(body(&next(&mut consumer).await?), "after".to_owned())?;
                recovering.close(200, "bye".into()).await?;
            }
            "idle" => {
                sleep((self.since + Duration::from_millis(3500)).saturating_duration_since(Instant::now())).await;
                equal(self.quiet.status().connected(), true)?;
                queue(&self.quiet.create_channel().await?, self).await?;
            }
            _ => return fail("no such step"),
        }
        Ok(())
    }

    async fn attempt(&self, step: &str, connection: &Connection) -> Outcome {
        let (channel, confirming) = (connection.create_channel().await?, connection.create_channel().await?);
        confirming.confirm_select(Default::default()).await?;
        let limited = timeout(4 * WAIT, self.run(step, connection, &channel, &confirming));
        let outcome = match AssertUnwindSafe(limited).catch_unwind().await {
            Ok(outcome) => outcome.unwrap_or_else(|_| fail("waited too long")),
            Err(_) => fail("panicked"),
        };
        for each in [channel, confirming] {
            let _ = each.close(200, "bye".into()).await;
        }
        outcome
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().collect();
    let (url, prefix, relay_port) = (arguments[1].clone(), arguments[2].clone(), arguments[3].clone());
    say(serde_json::json!({"client": "lapin", "version": VERSION}));
    let quiet = Connection::connect(&format!("{url}?heartbeat=1"), ConnectionProperties::default()).await?;
    let program = Program { url, prefix, relay_port, quiet, since: Instant::now() };
    let mut connection = program.connect("").await?;
    for step in STEPS {
        if !connection.status().connected() {
            connection = program.connect("").await?;
        }
        match program.attempt(step, &connection).await.map_err(|error| error.to_string()) {
            Ok(()) => say(serde_json::json!({"step": step, "outcome": "ok"})),
            Err(text) => match text.strip_prefix("absent: ") {
                Some(reason) => say(serde_json::json!({"step": step, "outcome": "absent", "detail": reason})),
                None => say(serde_json::json!({"step": step, "outcome": "failed", "detail": text})),
            },
        }
    }
    Ok(())
}
