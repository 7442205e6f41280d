import com.rabbitmq.client.AMQP.BasicProperties;
import com.rabbitmq.client.*;
import com.rabbitmq.client.impl.ClientVersion;
import com.rabbitmq.client.impl.CredentialsProvider;
import com.rabbitmq.client.impl.DefaultCredentialsRefreshService;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.math.BigDecimal;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.*;
import java.util.concurrent.*;
import java.util.concurrent.atomic.AtomicInteger;

/** Uses most of the Java client's API against a broker: one line of JSON for each step (see ../../../programs.py). */
public class Client {
    interface Step { void run(Channel channel, Channel confirming) throws Exception; }

    interface Action { void run() throws Exception; }

    interface Condition { boolean holds() throws Exception; }

    static final long WAIT_MS = 10_000;
    static final Map<String, Step> STEPS = new LinkedHashMap<>();
    static String prefix;
    static ConnectionFactory factory;
    static Connection connection;
    static int count;

    static String quoted(String text) {
        StringBuilder quoted = new StringBuilder("\"");
        for (char c : text.toCharArray()) {
            if (c == '"' || c == '\\') quoted.append('\\').append(c);
            else if (c < ' ') quoted.append(String.format("\\u%04x", (int) c));
            else quoted.append(c);
        }
        return quoted.append('"').toString();
    }

    static synchronized void say(String... pairs) {
        StringJoiner line = new StringJoiner(", ", "{", "}");
        for (int i = 0; i < pairs.length; i += 2) line.add(quoted(pairs[i]) + ": " + quoted(pairs[i + 1]));
        System.out.println(line);
        System.out.flush();
    }

    static String name(String word) { return prefix + "." + word + "." + ++count; }

    static byte[] bytes(String text) { return text.getBytes(StandardCharsets.UTF_8); }

    static String text(byte[] body) { return new String(body, StandardCharsets.UTF_8); }

    static void equal(Object got, Object expected) {
        if (!Objects.deepEquals(got, expected)) throw new AssertionError("got " + got + " instead of " + expected);
    }

    static void starts(String got, String expected) {
        if (!got.startsWith(expected)) throw new AssertionError("got " + got + " instead of " + expected);
    }

    static void closed(ShutdownSignalException signal, int code, String text) {
        boolean hard = signal.getReason() instanceof AMQP.Connection.Close;
        int told = hard ? ((AMQP.Connection.Close) signal.getReason()).getReplyCode()
            : ((AMQP.Channel.Close) signal.getReason()).getReplyCode();
        equal(told, code);
        starts(hard ? ((AMQP.Connection.Close) signal.getReason()).getReplyText()
            : ((AMQP.Channel.Close) signal.getReason()).getReplyText(), text);
    }

    static void refused(Action action, int code, String text) throws Exception {
        try {
            action.run();
        } catch (Exception error) {
            for (Throwable cause = error; cause != null; cause = cause.getCause())
                if (cause instanceof ShutdownSignalException) {
                    closed((ShutdownSignalException) cause, code, text);
                    return;
                }
            throw error;
        }
        throw new AssertionError("not refused: " + text);
    }

    static <T> T next(BlockingQueue<T> from) throws Exception {
        T value = from.poll(WAIT_MS, TimeUnit.MILLISECONDS);
        if (value == null) throw new AssertionError("waited too long for the next of a list");
        return value;
    }

    static void until(Condition condition, String what) throws Exception {
        for (long end = System.currentTimeMillis() + WAIT_MS; !condition.holds(); Thread.sleep(10))
            if (System.currentTimeMillis() > end) throw new AssertionError("waited too long until " + what);
    }

    static String queue(Channel channel, Object... arguments) throws Exception {
        return channel.queueDeclare(name("q"), false, true, false, table(arguments)).getQueue();
    }

    static String exchange(Channel channel, BuiltinExchangeType type) throws Exception {
        String named = name("x");
        channel.exchangeDeclare(named, type, false, true, null);
        return named;
    }

    static Map<String, Object> table(Object... pairs) {
        Map<String, Object> table = new HashMap<>();
        for (int i = 0; i < pairs.length; i += 2) table.put((String) pairs[i], pairs[i + 1]);
        return table;
    }

    static BasicProperties headers(Map<String, Object> headers) {
        return new BasicProperties.Builder().headers(headers).build();
    }

    static void publish(Channel confirming, String to, String key, BasicProperties properties, byte[] body) throws Exception {
        confirming.basicPublish(to, key, properties, body);
        confirming.waitForConfirmsOrDie(WAIT_MS);
    }

    static void send(Channel confirming, String to, String... texts) throws Exception {
        for (String each : texts) publish(confirming, "", to, null, bytes(each));
    }

    static GetResponse get(Channel channel, String from, boolean autoAck) throws Exception {
        GetResponse[] got = new GetResponse[1];
        until(() -> (got[0] = channel.basicGet(from, autoAck)) != null, "there is a message in " + from);
        return got[0];
    }

    static BlockingQueue<Delivery> consume(Channel channel, String from, boolean autoAck) throws Exception {
        BlockingQueue<Delivery> deliveries = new LinkedBlockingQueue<>();
        channel.basicConsume(from, autoAck, (tag, delivery) -> deliveries.add(delivery), tag -> {});
        return deliveries;
    }

    /** Who of the queues gets the message? */
    static String routed(Channel confirming, String source, String key, Map<String, Object> headers, String... queues) throws Exception {
        publish(confirming, source, key, headers(headers), new byte[0]);
        StringBuilder reached = new StringBuilder();
        for (int i = 0; i < queues.length; i++)
            if (confirming.basicGet(queues[i], true) != null) reached.append((char) ('a' + i));
        return reached.toString();
    }

    /** Compares header values: long strings are read as such, the rest as it was sent. */
    static Object plain(Object value) {
        if (value instanceof LongString) return value.toString();
        if (value instanceof List) {
            List<Object> list = new ArrayList<>();
            for (Object each : (List<?>) value) list.add(plain(each));
            return list;
        }
        if (value instanceof Map) {
            Map<String, Object> map = new HashMap<>();
            for (Map.Entry<?, ?> each : ((Map<?, ?>) value).entrySet()) map.put((String) each.getKey(), plain(each.getValue()));
            return map;
        }
        if (value instanceof byte[]) return Arrays.toString((byte[]) value);
        return value;
    }

    @SuppressWarnings("unchecked")
    static Map<String, Object> death(Map<String, Object> headers, int index) {
        return ((List<Map<String, Object>>) plain(headers.get("x-death"))).get(index);
    }

    static {
        STEPS.put("connect", (channel, confirming) -> {
            ConnectionFactory own = factory.clone();
            own.setRequestedHeartbeat(7);
            own.setRequestedFrameMax(8192);
            own.setRequestedChannelMax(50);
            try (Connection opened = own.newConnection(prefix)) {
                equal(List.of(opened.getHeartbeat(), opened.getFrameMax(), opened.getChannelMax()), List.of(7, 8192, 50));
                equal(opened.getClientProvidedName(), prefix);
            }
        });
        STEPS.put("server-properties", (channel, confirming) -> {
            Map<?, ?> capabilities = (Map<?, ?>) connection.getServerProperties().get("capabilities");
            for (String word : List.of("publisher_confirms", "exchange_exchange_bindings", "basic.nack", "consumer_cancel_notify",
                    "connection.blocked", "consumer_priorities", "authentication_failure_close", "per_consumer_qos", "direct_reply_to"))
                equal(capabilities.get(word), true);
        });
        STEPS.put("wrong-password", (channel, confirming) -> {
            ConnectionFactory own = factory.clone();
            own.setPassword("wrong");
            try {
                own.newConnection().close();
            } catch (AuthenticationFailureException error) {
                starts(error.getMessage(), "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN");
                return;
            }
            throw new AssertionError("not refused");
        });
        STEPS.put("unknown-vhost", (channel, confirming) -> {
            ConnectionFactory own = factory.clone();
            own.setVirtualHost("nowhere");
            refused(() -> own.newConnection().close(), 530, "NOT_ALLOWED - vhost nowhere not found");
        });
        STEPS.put("many-channels", (channel, confirming) -> {
            try (Connection opened = factory.newConnection()) {
                List<Channel> channels = new ArrayList<>();
                for (int i = 0; i < 100; i++) {
                    channels.add(opened.createChannel());
                    queue(channels.get(i));
                }
                for (Channel each : channels.subList(50, 100)) each.close();
                queue(channels.get(0));
                equal(opened.createChannel(77).getChannelNumber(), 77);
            }
        });
        STEPS.put("blocked-listener", (channel, confirming) -> {
            BlockedListener listener = connection.addBlockedListener(reason -> {}, () -> {});
            equal(connection.removeBlockedListener(listener), true);
        });
        STEPS.put("update-secret", (channel, confirming) -> {
            AtomicInteger refreshes = new AtomicInteger();
            CredentialsProvider provider = new CredentialsProvider() {
                public String getUsername() { return factory.getUsername(); }
                public String getPassword() { return factory.getPassword(); }
                public Duration getTimeBeforeExpiration() { return Duration.ofSeconds(1); }
                public void refresh() { refreshes.incrementAndGet(); }
            };
            ConnectionFactory own = factory.clone();
            own.setCredentialsProvider(provider);
            DefaultCredentialsRefreshService service = new DefaultCredentialsRefreshService.DefaultCredentialsRefreshServiceBuilder()
                .refreshDelayStrategy(left -> Duration.ofMillis(50)).build();
            own.setCredentialsRefreshService(service);
            try (Connection opened = own.newConnection()) {
                Channel other = opened.createChannel();
                until(() -> refreshes.get() >= 3, "the secret was updated");
                queue(other);
            }
            service.close();
        });
        STEPS.put("declare-queue", (channel, confirming) -> {
            String named = queue(channel);
            AMQP.Queue.DeclareOk again = channel.queueDeclare(named, false, true, false, null);
            equal(List.of(again.getQueue(), again.getMessageCount(), again.getConsumerCount()), List.of(named, 0, 0));
            send(confirming, named, "one");
            equal(channel.queueDeclarePassive(named).getMessageCount(), 1);
            equal(channel.messageCount(named), 1L);
            channel.queueDeclareNoWait(named, false, true, false, null);
            starts(channel.queueDeclare().getQueue(), "amq.gen-");
        });
        STEPS.put("queue-arguments", (channel, confirming) -> {
            Object[] arguments = {"x-message-ttl", 60000, "x-expires", 60000L, "x-max-length", 10, "x-max-length-bytes", (short) 1000,
                "x-overflow", "reject-publish", "x-dead-letter-exchange", "", "x-dead-letter-routing-key", "k",
                "x-max-priority", (byte) 5, "x-single-active-consumer", true, "x-queue-mode", "lazy"};
            channel.queueDeclare(queue(channel, arguments), false, true, false, table(arguments));
        });
        STEPS.put("unknown-queue", (channel, confirming) -> {
            String none = name("none");
            refused(() -> channel.queueDeclarePassive(none), 404, "NOT_FOUND - no queue '" + none + "' in vhost '/'");
            queue(connection.createChannel());
        });
        STEPS.put("other-properties", (channel, confirming) -> {
            String named = queue(channel, "x-message-ttl", 1000);
            refused(() -> channel.queueDeclare(named, false, true, false, table("x-message-ttl", 2000)), 406,
                "PRECONDITION_FAILED - inequivalent arg 'x-message-ttl' for queue '" + named
                    + "' in vhost '/': received '2000' but current is '1000'");
        });
        STEPS.put("locked-queue", (channel, confirming) -> {
            String named = queue(channel);
            try (Connection other = factory.newConnection()) {
                refused(() -> other.createChannel().queueDeclarePassive(named), 405,
                    "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '" + named + "' in vhost '/'");
            }
        });
        STEPS.put("exchange-types", (channel, confirming) -> {
            for (String type : List.of("direct", "fanout", "topic", "headers")) {
                String named = name("x");
                boolean internal = type.equals("fanout");
                for (int i = 0; i < 2; i++) channel.exchangeDeclare(named, type, true, false, internal, table("note", 1));
                channel.exchangeDeclarePassive(named);
                channel.exchangeDelete(named, true);
            }
            String none = name("none");
            refused(() -> channel.exchangeDeclarePassive(none), 404, "NOT_FOUND - no exchange '" + none + "' in vhost '/'");
        });
        STEPS.put("route-direct", (channel, confirming) -> {
            String source = exchange(channel, BuiltinExchangeType.DIRECT), a = queue(channel), b = queue(channel);
            channel.queueBind(a, source, "red");
            channel.queueBind(b, source, "red");
            channel.queueBind(b, source, "blue");
            equal(routed(confirming, source, "red", null, a, b), "ab");
            equal(routed(confirming, source, "blue", null, a, b), "b");
            channel.queueUnbind(b, source, "red");
            equal(routed(confirming, source, "red", null, a, b), "a");
        });
        STEPS.put("route-fanout", (channel, confirming) -> {
            String source = exchange(channel, BuiltinExchangeType.FANOUT), a = queue(channel), b = queue(channel);
            channel.queueBind(a, source, "");
            channel.queueBind(b, source, "ignored");
            equal(routed(confirming, source, "any", null, a, b), "ab");
        });
        STEPS.put("route-topic", (channel, confirming) -> {
            String source = exchange(channel, BuiltinExchangeType.TOPIC);
            String a = queue(channel), b = queue(channel), c = queue(channel);
            channel.queueBind(a, source, "*.orange.*");
            channel.queueBind(b, source, "lazy.#");
            channel.queueBind(c, source, "#");
            equal(routed(confirming, source, "quick.orange.fox", null, a, b, c), "ac");
            equal(routed(confirming, source, "lazy.orange.elephant", null, a, b, c), "abc");
            equal(routed(confirming, source, "lazy", null, a, b, c), "bc");
            equal(routed(confirming, source, "", null, a, b, c), "c");
        });
        STEPS.put("route-headers", (channel, confirming) -> {
            String source = exchange(channel, BuiltinExchangeType.HEADERS), a = queue(channel), b = queue(channel);
            channel.queueBind(a, source, "", table("x-match", "all", "size", 1, "colour", "red"));
            channel.queueBind(b, source, "", table("x-match", "any", "size", 1, "colour", "red"));
            equal(routed(confirming, source, "", table("size", 1, "colour", "red"), a, b), "ab");
            equal(routed(confirming, source, "", table("size", 2, "colour", "red"), a, b), "b");
            equal(routed(confirming, source, "", table("size", 2), a, b), "");
        });
        STEPS.put("exchange-to-exchange", (channel, confirming) -> {
            String source = exchange(channel, BuiltinExchangeType.TOPIC), target = exchange(channel, BuiltinExchangeType.FANOUT);
            String a = queue(channel);
            channel.queueBind(a, target, "");
            channel.exchangeBind(target, source, "kept"); // so that it is not deleted with the other one
            channel.exchangeBind(target, source, "x.*", table("note", "kept"));
            equal(routed(confirming, source, "x.1", null, a), "a");
            channel.exchangeUnbind(target, source, "x.*", table("note", "kept"));
            equal(routed(confirming, source, "x.1", null, a), "");
        });
        STEPS.put("alternate-exchange", (channel, confirming) -> {
            String spare = exchange(channel, BuiltinExchangeType.FANOUT), source = name("x"), a = queue(channel);
            channel.exchangeDeclare(source, "direct", false, false, table("alternate-exchange", spare));
            channel.queueBind(a, spare, "");
            equal(routed(confirming, source, "unrouted", null, a), "a");
            channel.exchangeDelete(source);
        });
        STEPS.put("default-exchange", (channel, confirming) -> {
            String a = queue(channel);
            equal(routed(confirming, "", a, null, a), "a");
            refused(() -> channel.queueBind(a, "", "k"), 403, "ACCESS_REFUSED - operation not permitted on the default exchange");
        });
        STEPS.put("purge-delete", (channel, confirming) -> {
            String a = queue(channel);
            send(confirming, a, "1", "2", "3", "4", "5");
            equal(channel.queuePurge(a).getMessageCount(), 5);
            send(confirming, a, "1");
            equal(channel.queueDelete(a).getMessageCount(), 1);
            equal(channel.queueDelete(a).getMessageCount(), 0);
        });
        STEPS.put("delete-conditions", (channel, confirming) -> {
            String a = queue(channel);
            send(confirming, a, "m");
            refused(() -> connection.createChannel().queueDelete(a, false, true), 406,
                "PRECONDITION_FAILED - queue '" + a + "' in vhost '/' not empty");
            consume(channel, a, false);
            refused(() -> connection.createChannel().queueDelete(a, true, false), 406,
                "PRECONDITION_FAILED - queue '" + a + "' in vhost '/' in use");
        });
        STEPS.put("properties", (channel, confirming) -> {
            String a = queue(channel);
            BasicProperties sent = new BasicProperties.Builder().contentType("application/json").contentEncoding("utf-8")
                .headers(table("h", 1)).deliveryMode(2).priority(7).correlationId("c-1").replyTo("r").expiration("60000")
                .messageId("m-1").timestamp(new Date(1700000000000L)).type("t").userId(factory.getUsername()).appId("app")
                .clusterId("cluster").build();
            publish(confirming, "", a, sent, bytes("{}"));
            GetResponse got = get(channel, a, true);
            equal(got.getProps(), sent);
            equal(List.of(got.getEnvelope().getExchange(), got.getEnvelope().getRoutingKey(), got.getEnvelope().isRedeliver()),
                List.of("", a, false));
        });
        STEPS.put("headers", (channel, confirming) -> {
            String a = queue(channel);
            Map<String, Object> sent = table("text", "gr\u00fc\u00df \ud83d\udc07", "empty", "", "yes", true, "no", false, "byte", (byte) -100,
                "short", (short) -30000, "int", 2000000000, "long", 1L << 62, "float", 0.25f, "double", 1.1,
                "decimal", new BigDecimal("3.14"), "nothing", null, "bytes", new byte[] {0, -1, 1}, "time", new Date(1700000000000L),
                "list", List.of(1, "two", List.of(3L), table("four", (byte) 4)), "table", table("deep", table("deeper", List.of("x"))));
            publish(confirming, "", a, headers(sent), new byte[0]);
            equal(plain(get(channel, a, true).getProps().getHeaders()), plain(sent));
        });
        STEPS.put("large", (channel, confirming) -> {
            String a = queue(channel);
            byte[] content = bytes("the quick brown fox ".repeat(1 << 16));
            publish(confirming, "", a, null, content);
            equal(get(channel, a, true).getBody(), content);
            ConnectionFactory own = factory.clone();
            own.setRequestedFrameMax(4096);
            try (Connection small = own.newConnection()) {
                equal(small.getFrameMax(), 4096);
                Channel again = small.createChannel();
                again.confirmSelect();
                String its = queue(again);
                publish(again, "", its, null, content);
                equal(get(again, its, true).getBody(), content);
            }
        });
        STEPS.put("empty", (channel, confirming) -> {
            String a = queue(channel);
            send(confirming, a, "");
            equal(get(channel, a, true).getBody().length, 0);
        });
        STEPS.put("mandatory", (channel, confirming) -> {
            BlockingQueue<Return> returns = new LinkedBlockingQueue<>();
            channel.addReturnListener((ReturnCallback) returns::add);
            BasicProperties properties = new BasicProperties.Builder().messageId("m").build();
            channel.basicPublish("", name("none"), true, properties, bytes("lost"));
            Return back = next(returns);
            equal(List.of(back.getReplyCode(), back.getReplyText(), back.getProperties().getMessageId(), text(back.getBody())),
                List.of(312, "NO_ROUTE", "m", "lost"));
        });
        STEPS.put("confirm", (channel, confirming) -> {
            String a = queue(channel);
            BlockingQueue<String> told = new LinkedBlockingQueue<>();
            confirming.addConfirmListener((tag, multiple) -> told.add("ack " + tag), (tag, multiple) -> told.add("nack " + tag));
            confirming.addReturnListener((ReturnCallback) message -> told.add("return"));
            equal(confirming.getNextPublishSeqNo(), 1L);
            confirming.basicPublish("", a, MessageProperties.PERSISTENT_TEXT_PLAIN, bytes("m"));
            equal(confirming.waitForConfirms(WAIT_MS), true);
            equal(channel.queueDeclarePassive(a).getMessageCount(), 1);
            confirming.basicPublish("", name("none"), true, null, bytes("m"));
            equal(List.of(next(told), next(told), next(told)), List.of("ack 1", "return", "ack 2"));
        });
        STEPS.put("confirm-many", (channel, confirming) -> {
            String a = queue(channel);
            SortedSet<Long> open = Collections.synchronizedSortedSet(new TreeSet<>());
            confirming.addConfirmListener((tag, multiple) -> {
                if (multiple) open.headSet(tag + 1).clear();
                else open.remove(tag);
            }, (tag, multiple) -> {});
            for (long i = 1; i <= 1000; i++) open.add(i);
            for (int i = 0; i < 1000; i++) confirming.basicPublish("", a, null, bytes("m"));
            equal(confirming.waitForConfirms(WAIT_MS), true);
            until(open::isEmpty, "all are confirmed");
            equal(channel.queueDeclarePassive(a).getMessageCount(), 1000);
        });
        STEPS.put("confirm-nack", (channel, confirming) -> {
            String a = queue(channel, "x-max-length", 1, "x-overflow", "reject-publish");
            send(confirming, a, "fits");
            confirming.basicPublish("", a, null, bytes("does not"));
            equal(confirming.waitForConfirms(WAIT_MS), false);
        });
        STEPS.put("get", (channel, confirming) -> {
            String a = queue(channel);
            equal(channel.basicGet(a, false), null);
            send(confirming, a, "1", "2");
            GetResponse first = get(channel, a, false);
            equal(List.of(text(first.getBody()), first.getMessageCount()), List.of("1", 1));
            channel.basicAck(first.getEnvelope().getDeliveryTag(), false);
            equal(get(channel, a, true).getMessageCount(), 0);
        });
        STEPS.put("consume-ack", (channel, confirming) -> {
            String a = queue(channel);
            BlockingQueue<String> got = new LinkedBlockingQueue<>();
            equal(channel.basicConsume(a, false, "mine", (tag, delivery) ->
                got.add(tag + delivery.getEnvelope().getDeliveryTag() + text(delivery.getBody())), tag -> {}), "mine");
            send(confirming, a, "a", "b", "c", "d", "e");
            for (String each : List.of("mine1a", "mine2b", "mine3c", "mine4d", "mine5e")) equal(next(got), each);
            channel.basicAck(3, true);
            channel.basicAck(5, false);
            channel.close();
            GetResponse left = get(confirming, a, false);
            equal(List.of(text(left.getBody()), left.getEnvelope().isRedeliver(), left.getMessageCount()), List.of("d", true, 0));
        });
        STEPS.put("consume-no-ack", (channel, confirming) -> {
            String a = queue(channel);
            BlockingQueue<Delivery> deliveries = consume(channel, a, true);
            send(confirming, a, "1", "2", "3");
            for (int i = 0; i < 3; i++) next(deliveries);
            channel.close();
            equal(confirming.basicGet(a, true), null);
        });
        STEPS.put("nack", (channel, confirming) -> {
            String a = queue(channel);
            send(confirming, a, "1", "2", "3");
            get(channel, a, false);
            long second = get(channel, a, false).getEnvelope().getDeliveryTag();
            long third = get(channel, a, false).getEnvelope().getDeliveryTag();
            channel.basicNack(second, true, true);
            channel.basicNack(third, false, false);
            for (String each : List.of("1", "2")) {
                GetResponse again = get(channel, a, true);
                equal(List.of(text(again.getBody()), again.getEnvelope().isRedeliver()), List.of(each, true));
            }
            equal(channel.basicGet(a, true), null);
        });
        STEPS.put("reject", (channel, confirming) -> {
            String a = queue(channel);
            send(confirming, a, "m");
            channel.basicReject(get(channel, a, false).getEnvelope().getDeliveryTag(), true);
            Envelope again = get(channel, a, false).getEnvelope();
            equal(again.isRedeliver(), true);
            channel.basicReject(again.getDeliveryTag(), false);
            equal(channel.basicGet(a, true), null);
        });
        STEPS.put("recover", (channel, confirming) -> {
            String a = queue(channel);
            send(confirming, a, "m");
            BlockingQueue<Delivery> deliveries = consume(channel, a, false);
            next(deliveries);
            channel.basicRecover(true);
            equal(next(deliveries).getEnvelope().isRedeliver(), true);
        });
        STEPS.put("prefetch", (channel, confirming) -> {
            String a = queue(channel);
            send(confirming, a, "1", "2", "3", "4", "5");
            channel.basicQos(2);
            BlockingQueue<Delivery> deliveries = consume(channel, a, false);
            next(deliveries);
            Delivery second = next(deliveries);
            equal(confirming.queueDeclarePassive(a).getMessageCount(), 3);
            equal(deliveries.size(), 0);
            channel.basicAck(second.getEnvelope().getDeliveryTag(), true);
            equal(text(next(deliveries).getBody()), "3");
            channel.basicQos(3, true);
        });
        STEPS.put("cancel", (channel, confirming) -> {
            String a = queue(channel);
            BlockingQueue<String> told = new LinkedBlockingQueue<>();
            String tag = channel.basicConsume(a, new DefaultConsumer(channel) {
                @Override public void handleConsumeOk(String tag) { told.add("ok"); }
                @Override public void handleCancelOk(String tag) { told.add("cancelled"); }
                @Override public void handleDelivery(String tag, Envelope envelope, BasicProperties properties, byte[] body) { told.add("m"); }
            });
            equal(channel.consumerCount(a), 1L);
            channel.basicCancel(tag);
            send(confirming, a, "m");
            equal(channel.messageCount(a), 1L);
            equal(channel.consumerCount(a), 0L);
            equal(List.of(next(told), next(told), told.size()), List.of("ok", "cancelled", 0));
        });
        STEPS.put("server-cancel", (channel, confirming) -> {
            String a = queue(channel);
            BlockingQueue<String> cancelled = new LinkedBlockingQueue<>();
            String tag = channel.basicConsume(a, (its, delivery) -> {}, cancelled::add);
            confirming.queueDelete(a);
            equal(next(cancelled), tag);
            queue(channel);
        });
        STEPS.put("exclusive-consumer", (channel, confirming) -> {
            String a = queue(channel);
            channel.basicConsume(a, false, "", false, true, null, new DefaultConsumer(channel));
            refused(() -> consume(confirming, a, false), 403, "ACCESS_REFUSED - queue '" + a + "' in vhost '/' in exclusive use");
        });
        STEPS.put("consumer-priority", (channel, confirming) -> {
            String a = queue(channel);
            BlockingQueue<Delivery> low = consume(channel, a, true), high = new LinkedBlockingQueue<>();
            channel.basicConsume(a, true, table("x-priority", 10), (tag, delivery) -> high.add(delivery), tag -> {});
            send(confirming, a, "1", "2", "3");
            for (int i = 0; i < 3; i++) next(high);
            equal(low.size(), 0);
        });
        STEPS.put("unknown-delivery-tag", (channel, confirming) -> {
            BlockingQueue<ShutdownSignalException> ends = new LinkedBlockingQueue<>();
            channel.addShutdownListener(ends::add);
            channel.basicAck(99, false);
            closed(next(ends), 406, "PRECONDITION_FAILED - unknown delivery tag 99");
        });
        STEPS.put("message-ttl", (channel, confirming) -> {
            String dead = queue(channel), a = queue(channel, "x-dead-letter-exchange", "", "x-dead-letter-routing-key", dead);
            publish(confirming, "", a, new BasicProperties.Builder().expiration("20").headers(table("kept", "yes")).build(), bytes("m"));
            BasicProperties got = get(channel, dead, true).getProps();
            Map<String, Object> death = death(got.getHeaders(), 0);
            if (!(death.remove("time") instanceof Date)) throw new AssertionError("no time");
            equal(death, table("queue", a, "exchange", "", "routing-keys", List.of(a), "reason", "expired", "count", 1L,
                "original-expiration", "20"));
            Map<?, ?> headers = (Map<?, ?>) plain(got.getHeaders());
            equal(List.of(headers.get("kept"), headers.get("x-first-death-queue"), headers.get("x-first-death-reason")),
                List.of("yes", a, "expired"));
            equal(got.getExpiration(), null);
        });
        STEPS.put("dead-letter-rejected", (channel, confirming) -> {
            String dlx = exchange(channel, BuiltinExchangeType.DIRECT), a = name("q");
            String dead = queue(channel, "x-dead-letter-exchange", "", "x-dead-letter-routing-key", a);
            channel.queueBind(dead, dlx, "dead");
            channel.queueDeclare(a, false, true, false, table("x-dead-letter-exchange", dlx, "x-dead-letter-routing-key", "dead"));
            send(confirming, a, "m");
            for (String each : List.of(a, dead, a)) channel.basicReject(get(channel, each, false).getEnvelope().getDeliveryTag(), false);
            GetResponse got = get(channel, dead, true);
            equal(List.of(got.getEnvelope().getExchange(), got.getEnvelope().getRoutingKey()), List.of(dlx, "dead"));
            Map<String, Object> first = death(got.getProps().getHeaders(), 0), second = death(got.getProps().getHeaders(), 1);
            equal(List.of(first.get("queue"), first.get("reason"), first.get("count"), first.get("routing-keys")),
                List.of(a, "rejected", 2L, List.of(a)));
            equal(List.of(second.get("queue"), second.get("reason"), second.get("count"), second.get("routing-keys")),
                List.of(dead, "rejected", 1L, List.of("dead")));
        });
        STEPS.put("max-length", (channel, confirming) -> {
            String dead = queue(channel);
            String a = queue(channel, "x-max-length", 2, "x-dead-letter-exchange", "", "x-dead-letter-routing-key", dead);
            send(confirming, a, "1", "2", "3");
            GetResponse dropped = get(channel, dead, true);
            equal(List.of(text(dropped.getBody()), death(dropped.getProps().getHeaders(), 0).get("reason")), List.of("1", "maxlen"));
            equal(text(get(channel, a, true).getBody()), "2");
        });
        STEPS.put("priority", (channel, confirming) -> {
            String a = queue(channel, "x-max-priority", 5);
            for (int level : new int[] {0, 1, 5, 3, 9})
                publish(confirming, "", a, new BasicProperties.Builder().priority(level).build(), bytes("" + level));
            StringBuilder order = new StringBuilder();
            for (int i = 0; i < 5; i++) order.append(text(get(channel, a, true).getBody()));
            equal(order.toString(), "59310");
        });
        STEPS.put("tx-commit", (channel, confirming) -> {
            String a = queue(channel), b = queue(channel);
            send(confirming, b, "taken");
            long taken = get(channel, b, false).getEnvelope().getDeliveryTag();
            channel.txSelect();
            channel.basicPublish("", a, null, bytes("1"));
            channel.basicAck(taken, false);
            equal(confirming.basicGet(a, true), null);
            channel.txCommit();
            equal(text(get(confirming, a, true).getBody()), "1");
            equal(confirming.queueDelete(b).getMessageCount(), 0);
        });
        STEPS.put("tx-rollback", (channel, confirming) -> {
            String a = queue(channel), b = queue(channel);
            send(confirming, b, "taken");
            long taken = get(channel, b, false).getEnvelope().getDeliveryTag();
            channel.txSelect();
            channel.basicPublish("", a, null, bytes("1"));
            channel.basicAck(taken, false);
            channel.txRollback();
            equal(channel.basicGet(a, true), null);
            channel.basicNack(taken, false, true);
            channel.txCommit();
            equal(text(get(confirming, b, true).getBody()), "taken");
            refused(channel::confirmSelect, 406, "PRECONDITION_FAILED - cannot switch from tx to confirm mode");
        });
        STEPS.put("direct-reply-to", (channel, confirming) -> {
            String requests = queue(channel);
            RpcServer server = new StringRpcServer(channel, requests) {
                @Override public String handleStringCall(String body, BasicProperties reply) { return body + "!"; }
            };
            Thread loop = new Thread(() -> {
                try {
                    server.mainloop();
                } catch (Exception over) {
                    // its channel was closed
                }
            });
            loop.start();
            Channel caller = connection.createChannel();
            RpcClient client = new RpcClient(new RpcClientParams().channel(caller).exchange("").routingKey(requests)
                .replyTo("amq.rabbitmq.reply-to").timeout((int) WAIT_MS));
            equal(client.stringCall("hey"), "hey!");
            equal(client.stringCall("again"), "again!");
            client.close();
            server.terminateMainloop();
        });
        STEPS.put("rpc-queue", (channel, confirming) -> {
            String requests = queue(channel);
            channel.basicConsume(requests, false, (tag, request) -> {
                BasicProperties properties = new BasicProperties.Builder().correlationId(request.getProperties().getCorrelationId()).build();
                channel.basicPublish("", request.getProperties().getReplyTo(), properties, request.getBody());
                channel.basicAck(request.getEnvelope().getDeliveryTag(), false);
            }, tag -> {});
            Channel caller = connection.createChannel();
            String answered = caller.queueDeclare().getQueue();
            BlockingQueue<Delivery> replies = consume(caller, answered, true);
            for (int i = 0; i < 10; i++)
                caller.basicPublish("", requests, new BasicProperties.Builder().correlationId("" + i).replyTo(answered).build(), bytes("" + i));
            for (int i = 0; i < 10; i++) {
                Delivery reply = next(replies);
                equal(text(reply.getBody()), reply.getProperties().getCorrelationId());
            }
        });
        STEPS.put("closed-channel", (channel, confirming) -> {
            BlockingQueue<ShutdownSignalException> ends = new LinkedBlockingQueue<>();
            channel.addShutdownListener(ends::add);
            String none = name("none");
            channel.basicPublish(none, "k", null, bytes("m"));
            closed(next(ends), 404, "NOT_FOUND - no exchange '" + none + "' in vhost '/'");
            queue(connection.createChannel());
        });
        STEPS.put("closed-connection", (channel, confirming) -> {
            ConnectionFactory own = factory.clone();
            own.setAutomaticRecoveryEnabled(false);
            Connection opened = own.newConnection();
            BlockingQueue<ShutdownSignalException> ends = new LinkedBlockingQueue<>();
            opened.addShutdownListener(ends::add);
            opened.createChannel().basicPublish("", "k", false, true, null, bytes("m"));
            closed(next(ends), 540, "NOT_IMPLEMENTED - immediate=true");
            own.newConnection().close();
        });
    }

    static void addRecovery(int relayPort, BufferedReader answers) {
        STEPS.put("recovery", (channel, confirming) -> {
            ConnectionFactory own = factory.clone();
            own.setHost("127.0.0.1");
            own.setPort(relayPort);
            own.setNetworkRecoveryInterval(50);
            Connection recovering = own.newConnection();
            BlockingQueue<String> told = new LinkedBlockingQueue<>();
            ((Recoverable) recovering).addRecoveryListener(new RecoveryListener() {
                public void handleRecovery(Recoverable recoverable) { told.add("recovered"); }
                public void handleRecoveryStarted(Recoverable recoverable) {}
            });
            Channel its = recovering.createChannel();
            String source = exchange(its, BuiltinExchangeType.TOPIC), named = its.queueDeclare().getQueue();
            its.queueBind(named, source, "k.#");
            BlockingQueue<Delivery> deliveries = consume(its, named, true);
            publish(confirming, source, "k", null, bytes("before"));
            equal(text(next(deliveries).getBody()), "before");
            say("ask", "cut");
            answers.readLine();
            equal(next(told), "recovered");
            publish(confirming, source, "k.2", null, bytes("after"));
            equal(text(next(deliveries).getBody()), "after");
            recovering.close();
        });
    }

    static void attempt(String step, Step run) {
        try {
            if (connection == null || !connection.isOpen()) connection = factory.newConnection(prefix);
            Channel channel = connection.createChannel(), confirming = connection.createChannel();
            confirming.confirmSelect();
            run.run(channel, confirming);
            for (Channel each : List.of(channel, confirming)) each.abort();
            say("step", step, "outcome", "ok");
        } catch (Throwable error) {
            StringJoiner trace = new StringJoiner("\n");
            for (Throwable cause = error; cause != null; cause = cause.getCause()) trace.add(cause.toString());
            for (StackTraceElement frame : error.getStackTrace()) trace.add("  " + frame);
            say("step", step, "outcome", "failed", "detail", trace.toString());
        }
    }

    public static void main(String[] arguments) throws Exception {
        prefix = arguments[1];
        factory = new ConnectionFactory();
        factory.setUri(arguments[0]);
        addRecovery(Integer.parseInt(arguments[2]), new BufferedReader(new InputStreamReader(System.in)));
        say("client", "amqp-client", "version", ClientVersion.VERSION);
        ConnectionFactory slow = factory.clone();
        slow.setRequestedHeartbeat(1);
        slow.setAutomaticRecoveryEnabled(false);
        Connection quiet = slow.newConnection();
        long since = System.currentTimeMillis();
        STEPS.forEach(Client::attempt);
        attempt("idle", (channel, confirming) -> {
            Thread.sleep(Math.max(0, since + 3500 - System.currentTimeMillis()));
            equal(quiet.isOpen(), true);
            queue(quiet.createChannel());
        });
        connection.close();
        quiet.close();
        System.exit(0);
    }
}
