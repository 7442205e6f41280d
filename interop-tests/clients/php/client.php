<?php
// Uses most of php-amqplib's API against a broker: one line of JSON for each step (see ../../programs.py).

require 'PhpAmqpLib/autoload.php';

use PhpAmqpLib\Channel\AMQPChannel;
use PhpAmqpLib\Connection\AMQPConnectionConfig;
use PhpAmqpLib\Connection\AMQPConnectionFactory;
use PhpAmqpLib\Exception\AMQPBasicCancelException;
use PhpAmqpLib\Exception\AMQPConnectionClosedException;
use PhpAmqpLib\Exception\AMQPExceptionInterface;
use PhpAmqpLib\Exception\AMQPProtocolChannelException;
use PhpAmqpLib\Exception\AMQPTimeoutException;
use PhpAmqpLib\Message\AMQPMessage;
use PhpAmqpLib\Package;
use PhpAmqpLib\Wire\AMQPDecimal;
use PhpAmqpLib\Wire\AMQPTable;

[, $url, $prefix, $relayPort] = $argv;
$address = parse_url($url);
$count = 0;
$connection = null;
const WAIT_S = 10;

class Absent extends Exception
{
}

function say(array $line): void
{
    echo json_encode($line, JSON_INVALID_UTF8_SUBSTITUTE), "\n";
}

function name(string $word): string
{
    global $prefix, $count;
    return "$prefix.$word." . ++$count;
}

function equal(mixed $got, mixed $expected): void
{
    if ($got != $expected || gettype($got) !== gettype($expected)) {
        throw new Exception('got ' . var_export($got, true) . ' instead of ' . var_export($expected, true));
    }
}

function refused(int $code, string $text, callable $action): void
{
    try {
        $action();
    } catch (AMQPProtocolChannelException | AMQPConnectionClosedException $error) {
        equal($error->getCode(), $code);
        equal(substr($error->getMessage(), 0, strlen($text)), $text);
        return;
    }
    throw new Exception("not refused: $text");
}

function connect(callable $change = null): PhpAmqpLib\Connection\AbstractConnection
{
    global $address;
    $config = new AMQPConnectionConfig();
    $config->setHost($address['host']);
    $config->setPort($address['port']);
    $config->setUser(urldecode($address['user']));
    $config->setPassword(urldecode($address['pass']));
    $config->setVhost(urldecode(substr($address['path'], 1)));
    $config->setReadTimeout(WAIT_S);
    $config->setWriteTimeout(WAIT_S);
    $config->setChannelRPCTimeout(WAIT_S);
    if ($change) {
        $change($config);
    }
    return AMQPConnectionFactory::create($config);
}

function queue(AMQPChannel $channel, array $arguments = []): string
{
    return $channel->queue_declare(name('q'), exclusive: true, auto_delete: false, arguments: new AMQPTable($arguments))[0];
}

function exchange(AMQPChannel $channel, string $type): string
{
    $named = name('x');
    $channel->exchange_declare($named, $type, auto_delete: true);
    return $named;
}

function message(string $body = 'm', array $properties = [], array $headers = null): AMQPMessage
{
    if ($headers !== null) {
        $properties['application_headers'] = new AMQPTable($headers);
    }
    return new AMQPMessage($body, $properties);
}

function publish(AMQPChannel $confirming, string $to, string $key, AMQPMessage $message, bool $mandatory = false): void
{
    $nacked = false;
    $confirming->set_nack_handler(function () use (&$nacked) {
        $nacked = true;
    });
    $confirming->basic_publish($message, $to, $key, $mandatory);
    $confirming->wait_for_pending_acks_returns(WAIT_S);
    if ($nacked) {
        throw new Exception('nacked');
    }
}

function send(AMQPChannel $confirming, string $to, string ...$bodies): void
{
    foreach ($bodies as $body) {
        publish($confirming, '', $to, message($body));
    }
}

function get(AMQPChannel $channel, string $from, bool $no_ack = false): AMQPMessage
{
    for ($end = microtime(true) + WAIT_S; microtime(true) < $end; usleep(10000)) {
        if ($message = $channel->basic_get($from, $no_ack)) {
            return $message;
        }
    }
    throw new Exception("waited too long for a message in $from");
}

function counts(AMQPChannel $channel, string $queue): array
{
    return array_slice($channel->queue_declare($queue, passive: true), 1);
}

// What a consumer gets.
class Inbox
{
    public array $messages = [];
    public string $tag;

    public function __construct(
        public AMQPChannel $channel,
        string $from,
        bool $no_ack = false,
        string $tag = '',
        bool $exclusive = false,
        array $arguments = [],
    ) {
        $take = fn(AMQPMessage $message) => $this->messages[] = $message;
        $this->tag = $channel->basic_consume($from, $tag, false, $no_ack, $exclusive, false, $take, null, new AMQPTable($arguments));
    }

    public function next(): AMQPMessage
    {
        while (!$this->messages) {
            $this->channel->wait(null, false, WAIT_S);
        }
        return array_shift($this->messages);
    }

    public function isQuiet(): bool
    {
        try {
            $this->channel->wait(null, false, 0.05);
        } catch (AMQPTimeoutException) {
            return !$this->messages;
        }
        return false;
    }
}

// Who of the queues gets the message?
function routed(AMQPChannel $confirming, string $source, string $key, array $queues, array $headers = []): string
{
    publish($confirming, $source, $key, message('m', [], $headers));
    return implode('', array_keys(array_filter($queues, fn($each) => $confirming->basic_get($each, true) !== null)));
}

function headers(AMQPMessage $message): array
{
    return $message->get('application_headers')->getNativeData();
}

$steps = [
    'connect' => function () use ($prefix) {
        $opened = connect(function ($config) use ($prefix) {
            $config->setHeartbeat(7);
            $config->setConnectionName($prefix);
        });
        equal([$opened->getHeartbeat(), $opened->isConnected()], [7, true]);
        $opened->close();
    },

    'server-properties' => function () use (&$connection) {
        $properties = $connection->getServerProperties();
        foreach (['publisher_confirms', 'exchange_exchange_bindings', 'basic.nack', 'consumer_cancel_notify', 'connection.blocked',
            'consumer_priorities', 'authentication_failure_close', 'per_consumer_qos', 'direct_reply_to'] as $word) {
            equal((bool) $properties['capabilities'][1][$word][1], true);
        }
    },

    'idle' => function () {
        $quiet = connect(fn($config) => $config->setHeartbeat(1));
        for ($end = microtime(true) + 3.5; microtime(true) < $end; usleep(200000)) {
            $quiet->checkHeartBeat();
        }
        queue($quiet->channel());
        $quiet->close();
    },

    'wrong-password' => function () {
        refused(403, 'ACCESS_REFUSED - Login was refused using authentication mechanism', fn() => connect(fn($config) => $config->setPassword('wrong')));
    },

    'unknown-vhost' => function () {
        refused(530, 'NOT_ALLOWED - vhost nowhere not found', fn() => connect(fn($config) => $config->setVhost('nowhere')));
    },

    'many-channels' => function () {
        $opened = connect();
        $channels = array_map(fn() => $opened->channel(), range(1, 100));
        array_map('queue', $channels);
        foreach (array_slice($channels, 50) as $channel) {
            $channel->close();
        }
        queue($channels[0]);
        equal($opened->channel(77)->getChannelId(), 77);
        $opened->close();
    },

    'blocked-listener' => function () use (&$connection) {
        $connection->set_connection_block_handler(fn($reason) => null);
        $connection->set_connection_unblock_handler(fn() => null);
        equal($connection->isBlocked(), false);
    },

    'update-secret' => fn() => throw new Absent('no update-secret'),

    'declare-queue' => function ($channel, $confirming) {
        $named = queue($channel);
        equal($channel->queue_declare($named, exclusive: true, auto_delete: false), [$named, 0, 0]);
        send($confirming, $named, 'one');
        equal(counts($channel, $named), [1, 0]);
        $channel->queue_declare($named, exclusive: true, auto_delete: false, nowait: true);
        equal(str_starts_with($channel->queue_declare('', exclusive: true)[0], 'amq.gen-'), true);
    },

    'queue-arguments' => function ($channel) {
        $arguments = ['x-message-ttl' => 60000, 'x-expires' => 60000, 'x-max-length' => 10, 'x-max-length-bytes' => 1000,
            'x-overflow' => 'reject-publish', 'x-dead-letter-exchange' => '', 'x-dead-letter-routing-key' => 'k', 'x-max-priority' => 5,
            'x-single-active-consumer' => true, 'x-queue-mode' => 'lazy'];
        $channel->queue_declare(queue($channel, $arguments), exclusive: true, auto_delete: false, arguments: new AMQPTable($arguments));
    },

    'unknown-queue' => function ($channel) use (&$connection) {
        $none = name('none');
        refused(404, "NOT_FOUND - no queue '$none' in vhost '/'", fn() => $channel->queue_declare($none, passive: true));
        queue($connection->channel());
    },

    'other-properties' => function ($channel) {
        $named = queue($channel, ['x-message-ttl' => 1000]);
        $text = "PRECONDITION_FAILED - inequivalent arg 'x-message-ttl' for queue '$named' in vhost '/': received '2000' but current is '1000'";
        refused(406, $text, fn() => $channel->queue_declare($named, exclusive: true, auto_delete: false, arguments: new AMQPTable(['x-message-ttl' => 2000])));
    },

    'locked-queue' => function ($channel) {
        $named = queue($channel);
        $other = connect();
        $text = "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '$named' in vhost '/'";
        refused(405, $text, fn() => $other->channel()->queue_declare($named, passive: true));
        $other->close();
    },

    'exchange-types' => function ($channel) {
        foreach (['direct', 'fanout', 'topic', 'headers'] as $type) {
            $named = name('x');
            for ($i = 0; $i < 2; $i++) {
                $channel->exchange_declare($named, $type, durable: true, auto_delete: false, internal: $type === 'fanout', arguments: new AMQPTable(['note' => 1]));
            }
            $channel->exchange_declare($named, $type, passive: true);
            $channel->exchange_delete($named, if_unused: true);
        }
        $none = name('none');
        refused(404, "NOT_FOUND - no exchange '$none' in vhost '/'", fn() => $channel->exchange_declare($none, 'direct', passive: true));
    },

    'route-direct' => function ($channel, $confirming) {
        [$source, $a, $b] = [exchange($channel, 'direct'), queue($channel), queue($channel)];
        $channel->queue_bind($a, $source, 'red');
        $channel->queue_bind($b, $source, 'red');
        $channel->queue_bind($b, $source, 'blue');
        equal(routed($confirming, $source, 'red', ['a' => $a, 'b' => $b]), 'ab');
        equal(routed($confirming, $source, 'blue', ['a' => $a, 'b' => $b]), 'b');
        $channel->queue_unbind($b, $source, 'red');
        equal(routed($confirming, $source, 'red', ['a' => $a, 'b' => $b]), 'a');
    },

    'route-fanout' => function ($channel, $confirming) {
        [$source, $a, $b] = [exchange($channel, 'fanout'), queue($channel), queue($channel)];
        $channel->queue_bind($a, $source);
        $channel->queue_bind($b, $source, 'ignored');
        equal(routed($confirming, $source, 'any', ['a' => $a, 'b' => $b]), 'ab');
    },

    'route-topic' => function ($channel, $confirming) {
        [$source, $a, $b, $c] = [exchange($channel, 'topic'), queue($channel), queue($channel), queue($channel)];
        $channel->queue_bind($a, $source, '*.orange.*');
        $channel->queue_bind($b, $source, 'lazy.#');
        $channel->queue_bind($c, $source, '#');
        foreach (['quick.orange.fox' => 'ac', 'lazy.orange.elephant' => 'abc', 'lazy' => 'bc', '' => 'c'] as $key => $reached) {
            equal(routed($confirming, $source, $key, ['a' => $a, 'b' => $b, 'c' => $c]), $reached);
        }
    },

    'route-headers' => function ($channel, $confirming) {
        [$source, $a, $b] = [exchange($channel, 'headers'), queue($channel), queue($channel)];
        $channel->queue_bind($a, $source, '', arguments: new AMQPTable(['x-match' => 'all', 'size' => 1, 'colour' => 'red']));
        $channel->queue_bind($b, $source, '', arguments: new AMQPTable(['x-match' => 'any', 'size' => 1, 'colour' => 'red']));
        equal(routed($confirming, $source, '', ['a' => $a, 'b' => $b], ['size' => 1, 'colour' => 'red']), 'ab');
        equal(routed($confirming, $source, '', ['a' => $a, 'b' => $b], ['size' => 2, 'colour' => 'red']), 'b');
        equal(routed($confirming, $source, '', ['a' => $a, 'b' => $b], ['size' => 2]), '');
    },

    'exchange-to-exchange' => function ($channel, $confirming) {
        [$source, $target, $a] = [exchange($channel, 'topic'), exchange($channel, 'fanout'), queue($channel)];
        $channel->queue_bind($a, $target);
        $channel->exchange_bind($target, $source, 'kept'); // so that it is not deleted with the other one
        $channel->exchange_bind($target, $source, 'x.*', arguments: new AMQPTable(['note' => 'kept']));
        equal(routed($confirming, $source, 'x.1', ['a' => $a]), 'a');
        $channel->exchange_unbind($target, $source, 'x.*', arguments: new AMQPTable(['note' => 'kept']));
        equal(routed($confirming, $source, 'x.1', ['a' => $a]), '');
    },

    'alternate-exchange' => function ($channel, $confirming) {
        [$spare, $source, $a] = [exchange($channel, 'fanout'), name('x'), queue($channel)];
        $channel->exchange_declare($source, 'direct', auto_delete: false, arguments: new AMQPTable(['alternate-exchange' => $spare]));
        $channel->queue_bind($a, $spare);
        equal(routed($confirming, $source, 'unrouted', ['a' => $a]), 'a');
        $channel->exchange_delete($source);
    },

    'default-exchange' => function ($channel, $confirming) {
        $a = queue($channel);
        equal(routed($confirming, '', $a, ['a' => $a]), 'a');
        refused(403, 'ACCESS_REFUSED - operation not permitted on the default exchange', fn() => $channel->queue_bind($a, '', 'k'));
    },

    'purge-delete' => function ($channel, $confirming) {
        $a = queue($channel);
        send($confirming, $a, '1', '2', '3', '4', '5');
        equal($channel->queue_purge($a), 5);
        send($confirming, $a, '1');
        equal($channel->queue_delete($a), 1);
        equal($channel->queue_delete($a), 0);
    },

    'delete-conditions' => function ($channel, $confirming) use (&$connection) {
        $a = queue($channel);
        send($confirming, $a, 'm');
        refused(406, "PRECONDITION_FAILED - queue '$a' in vhost '/' not empty", fn() => $connection->channel()->queue_delete($a, if_empty: true));
        new Inbox($channel, $a);
        refused(406, "PRECONDITION_FAILED - queue '$a' in vhost '/' in use", fn() => $connection->channel()->queue_delete($a, if_unused: true));
    },

    'properties' => function ($channel, $confirming) use ($address) {
        $a = queue($channel);
        $sent = ['content_type' => 'application/json', 'content_encoding' => 'utf-8', 'delivery_mode' => 2, 'priority' => 7,
            'correlation_id' => 'c-1', 'reply_to' => 'r', 'expiration' => '60000', 'message_id' => 'm-1', 'timestamp' => 1700000000,
            'type' => 't', 'user_id' => urldecode($address['user']), 'app_id' => 'app', 'cluster_id' => 'cluster'];
        publish($confirming, '', $a, message('{}', $sent, ['h' => 1]));
        $got = get($channel, $a, true);
        equal(headers($got), ['h' => 1]);
        $properties = $got->get_properties();
        unset($properties['application_headers']);
        equal($properties, $sent);
        equal([$got->getBody(), $got->getExchange(), $got->getRoutingKey(), $got->isRedelivered()], ['{}', '', $a, false]);
    },

    'headers' => function ($channel, $confirming) {
        $a = queue($channel);
        $table = new AMQPTable(['text' => "gr\u{fc}\u{df} \u{1f407}", 'empty' => '', 'yes' => true, 'no' => false, 'int' => 2000000000,
            'long' => 1 << 62, 'double' => '1.1', 'nothing' => null, 'list' => [1, 'two', [3], ['four' => 4]],
            'table' => ['deep' => ['deeper' => ['x']]]]);
        $time = new DateTime('@1700000000');
        $table->set('time', $time);
        $table->set('decimal', new AMQPDecimal(314, 2));
        $table->set('byte', -100, AMQPTable::T_INT_SHORTSHORT);
        $table->set('short', -30000, AMQPTable::T_INT_SHORT);
        $publishing = message();
        $publishing->set('application_headers', $table);
        publish($confirming, '', $a, $publishing);
        $got = get($channel, $a, true)->get('application_headers');
        $decimal = $got['decimal'];
        equal([$decimal->getN(), $decimal->getE()], [314, 2]);
        unset($got['decimal'], $table['decimal']);
        equal($got->getNativeData(), $table->getNativeData());
    },

    'large' => function ($channel, $confirming) {
        $a = queue($channel);
        $content = str_repeat('the quick brown fox ', 1 << 16);
        send($confirming, $a, $content);
        equal(get($channel, $a, true)->getBody() === $content, true);
    },

    'empty' => function ($channel, $confirming) {
        $a = queue($channel);
        send($confirming, $a, '');
        equal(get($channel, $a, true)->getBody(), '');
    },

    'mandatory' => function ($channel) {
        $back = null;
        $channel->set_return_listener(function (...$parts) use (&$back) {
            $back = $parts;
        });
        $none = name('none');
        $channel->basic_publish(message('lost', ['message_id' => 'm']), '', $none, true);
        $channel->wait(null, false, WAIT_S);
        [$code, $text, $from, $key, $message] = $back;
        equal([$code, $text, $from, $key, $message->get('message_id'), $message->getBody()], [312, 'NO_ROUTE', '', $none, 'm', 'lost']);
    },

    'confirm' => function ($channel, $confirming) {
        $a = queue($channel);
        $told = [];
        $confirming->set_ack_handler(function (AMQPMessage $message) use (&$told) {
            $told[] = 'ack ' . $message->getDeliveryTag();
        });
        $confirming->set_return_listener(function () use (&$told) {
            $told[] = 'return';
        });
        publish($confirming, '', $a, message('m', ['delivery_mode' => AMQPMessage::DELIVERY_MODE_PERSISTENT]));
        equal(counts($channel, $a), [1, 0]);
        publish($confirming, '', name('none'), message(), true);
        equal($told, ['ack 1', 'return', 'ack 2']);
    },

    'confirm-many' => function ($channel, $confirming) {
        $a = queue($channel);
        $acked = 0;
        $confirming->set_ack_handler(function () use (&$acked) {
            $acked++;
        });
        for ($i = 0; $i < 500; $i++) {
            $confirming->basic_publish(message(), '', $a);
        }
        for ($i = 0; $i < 500; $i++) {
            $confirming->batch_basic_publish(message(), '', $a);
        }
        $confirming->publish_batch();
        $confirming->wait_for_pending_acks(WAIT_S);
        equal([$acked, counts($channel, $a)], [1000, [1000, 0]]);
    },

    'confirm-nack' => function ($channel, $confirming) {
        $a = queue($channel, ['x-max-length' => 1, 'x-overflow' => 'reject-publish']);
        send($confirming, $a, 'fits');
        $nacked = null;
        $confirming->set_nack_handler(function (AMQPMessage $message) use (&$nacked) {
            $nacked = $message->getBody();
        });
        $confirming->basic_publish(message('does not'), '', $a);
        $confirming->wait_for_pending_acks(WAIT_S);
        equal($nacked, 'does not');
    },

    'get' => function ($channel, $confirming) {
        $a = queue($channel);
        equal($channel->basic_get($a), null);
        send($confirming, $a, '1', '2');
        $first = get($channel, $a);
        equal([$first->getBody(), $first->getMessageCount()], ['1', 1]);
        $first->ack();
        equal(get($channel, $a, true)->getMessageCount(), 0);
    },

    'consume-ack' => function ($channel, $confirming) {
        $a = queue($channel);
        $inbox = new Inbox($channel, $a, tag: 'mine');
        send($confirming, $a, '1', '2', '3', '4', '5');
        foreach ([1, 2, 3, 4, 5] as $i) {
            $messages[] = $message = $inbox->next();
            equal([$message->getConsumerTag(), $message->getDeliveryTag(), $message->getBody()], ['mine', $i, "$i"]);
        }
        $messages[2]->ack(true);
        $messages[4]->ack();
        $channel->close();
        $left = get($confirming, $a);
        equal([$left->getBody(), $left->isRedelivered(), $left->getMessageCount()], ['4', true, 0]);
    },

    'consume-no-ack' => function ($channel, $confirming) {
        $a = queue($channel);
        $inbox = new Inbox($channel, $a, no_ack: true);
        send($confirming, $a, '1', '2', '3');
        foreach (['1', '2', '3'] as $body) {
            equal($inbox->next()->getBody(), $body);
        }
        $channel->close();
        equal($confirming->basic_get($a), null);
    },

    'nack' => function ($channel, $confirming) {
        $a = queue($channel);
        send($confirming, $a, '1', '2', '3');
        [, $second, $third] = [get($channel, $a), get($channel, $a), get($channel, $a)];
        $second->nack(true, true);
        $third->nack();
        foreach (['1', '2'] as $body) {
            $again = get($channel, $a, true);
            equal([$again->getBody(), $again->isRedelivered()], [$body, true]);
        }
        equal($channel->basic_get($a), null);
    },

    'reject' => function ($channel, $confirming) {
        $a = queue($channel);
        send($confirming, $a, 'm');
        get($channel, $a)->reject(true);
        $again = get($channel, $a);
        equal($again->isRedelivered(), true);
        $again->reject(false);
        equal($channel->basic_get($a), null);
    },

    'recover' => function ($channel, $confirming) {
        $a = queue($channel);
        send($confirming, $a, 'm');
        $inbox = new Inbox($channel, $a);
        $inbox->next();
        $channel->basic_recover(true);
        equal($inbox->next()->isRedelivered(), true);
    },

    'prefetch' => function ($channel, $confirming) {
        $a = queue($channel);
        send($confirming, $a, '1', '2', '3', '4', '5');
        $channel->basic_qos(0, 2, false);
        $inbox = new Inbox($channel, $a);
        $inbox->next();
        $second = $inbox->next();
        equal([counts($confirming, $a), $inbox->isQuiet()], [[3, 1], true]);
        $second->ack(true);
        equal($inbox->next()->getBody(), '3');
        $channel->basic_qos(0, 3, true);
    },

    'cancel' => function ($channel, $confirming) {
        $a = queue($channel);
        $inbox = new Inbox($channel, $a);
        equal([counts($confirming, $a), $channel->is_consuming()], [[0, 1], true]);
        $channel->basic_cancel($inbox->tag);
        send($confirming, $a, 'm');
        equal([counts($confirming, $a), $channel->is_consuming(), $inbox->messages], [[1, 0], false, []]);
    },

    'server-cancel' => function ($channel, $confirming) {
        $a = queue($channel);
        $inbox = new Inbox($channel, $a);
        $confirming->queue_delete($a);
        try {
            $inbox->next();
        } catch (AMQPBasicCancelException $cancelled) {
            equal($cancelled->consumerTag, $inbox->tag);
            queue($channel);
            return;
        }
        throw new Exception('not cancelled');
    },

    'exclusive-consumer' => function ($channel, $confirming) {
        $a = queue($channel);
        new Inbox($channel, $a, exclusive: true);
        refused(403, "ACCESS_REFUSED - queue '$a' in vhost '/' in exclusive use", fn() => new Inbox($confirming, $a));
    },

    'consumer-priority' => function ($channel, $confirming) use (&$connection) {
        $a = queue($channel);
        $low = new Inbox($channel, $a, no_ack: true);
        $high = new Inbox($connection->channel(), $a, no_ack: true, arguments: ['x-priority' => 10]);
        send($confirming, $a, '1', '2', '3');
        foreach (['1', '2', '3'] as $body) {
            equal($high->next()->getBody(), $body);
        }
        equal($low->isQuiet(), true);
    },

    'unknown-delivery-tag' => function ($channel) {
        $channel->basic_ack(99);
        refused(406, 'PRECONDITION_FAILED - unknown delivery tag 99', fn() => $channel->wait(null, false, WAIT_S));
    },

    'message-ttl' => function ($channel, $confirming) {
        $dead = queue($channel);
        $a = queue($channel, ['x-dead-letter-exchange' => '', 'x-dead-letter-routing-key' => $dead]);
        publish($confirming, '', $a, message('m', ['expiration' => '20'], ['kept' => 'yes']));
        $got = get($channel, $dead, true);
        $headers = headers($got);
        $death = $headers['x-death'][0];
        equal($death['time'] instanceof DateTime, true);
        unset($death['time']);
        equal($death, ['queue' => $a, 'exchange' => '', 'routing-keys' => [$a], 'reason' => 'expired', 'count' => 1, 'original-expiration' => '20']);
        equal([$headers['kept'], $headers['x-first-death-queue'], $headers['x-first-death-reason'], $got->has('expiration')], ['yes', $a, 'expired', false]);
    },

    'dead-letter-rejected' => function ($channel, $confirming) {
        [$dlx, $a] = [exchange($channel, 'direct'), name('q')];
        $dead = queue($channel, ['x-dead-letter-exchange' => '', 'x-dead-letter-routing-key' => $a]);
        $channel->queue_bind($dead, $dlx, 'dead');
        $arguments = new AMQPTable(['x-dead-letter-exchange' => $dlx, 'x-dead-letter-routing-key' => 'dead']);
        $channel->queue_declare($a, exclusive: true, auto_delete: false, arguments: $arguments);
        send($confirming, $a, 'm');
        foreach ([$a, $dead, $a] as $each) {
            get($channel, $each)->reject(false);
        }
        $got = get($channel, $dead, true);
        equal([$got->getExchange(), $got->getRoutingKey()], [$dlx, 'dead']);
        $deaths = array_map(fn($death) => [$death['queue'], $death['reason'], $death['count'], $death['routing-keys']], headers($got)['x-death']);
        equal($deaths, [[$a, 'rejected', 2, [$a]], [$dead, 'rejected', 1, ['dead']]]);
    },

    'max-length' => function ($channel, $confirming) {
        $dead = queue($channel);
        $a = queue($channel, ['x-max-length' => 2, 'x-dead-letter-exchange' => '', 'x-dead-letter-routing-key' => $dead]);
        send($confirming, $a, '1', '2', '3');
        $dropped = get($channel, $dead, true);
        equal([$dropped->getBody(), headers($dropped)['x-death'][0]['reason']], ['1', 'maxlen']);
        equal(get($channel, $a, true)->getBody(), '2');
    },

    'priority' => function ($channel, $confirming) {
        $a = queue($channel, ['x-max-priority' => 5]);
        foreach ([0, 1, 5, 3, 9] as $level) {
            publish($confirming, '', $a, message("$level", ['priority' => $level]));
        }
        equal(implode('', array_map(fn() => get($channel, $a, true)->getBody(), range(1, 5))), '59310');
    },

    'tx-commit' => function ($channel, $confirming) {
        [$a, $b] = [queue($channel), queue($channel)];
        send($confirming, $b, 'taken');
        $taken = get($channel, $b);
        $channel->tx_select();
        $channel->basic_publish(message('1'), '', $a);
        $taken->ack();
        equal($confirming->basic_get($a), null);
        $channel->tx_commit();
        equal(get($confirming, $a, true)->getBody(), '1');
        equal($confirming->queue_delete($b), 0);
    },

    'tx-rollback' => function ($channel, $confirming) {
        [$a, $b] = [queue($channel), queue($channel)];
        send($confirming, $b, 'taken');
        $taken = get($channel, $b);
        $channel->tx_select();
        $channel->basic_publish(message('1'), '', $a);
        $channel->basic_ack($taken->getDeliveryTag());
        $channel->tx_rollback();
        equal($confirming->basic_get($a), null);
        $channel->basic_nack($taken->getDeliveryTag(), false, true);
        $channel->tx_commit();
        equal(get($confirming, $b, true)->getBody(), 'taken');
        refused(406, 'PRECONDITION_FAILED - cannot switch from tx to confirm mode', fn() => $channel->confirm_select());
    },

    'direct-reply-to' => function ($channel) use (&$connection) {
        $requests = queue($channel);
        $caller = $connection->channel();
        $replies = new Inbox($caller, 'amq.rabbitmq.reply-to', no_ack: true);
        $caller->basic_publish(message('hey', ['reply_to' => 'amq.rabbitmq.reply-to', 'correlation_id' => '42']), '', $requests);
        $request = get($channel, $requests, true);
        $channel->basic_publish(message('hey!', ['correlation_id' => $request->get('correlation_id')]), '', $request->get('reply_to'));
        $reply = $replies->next();
        equal([$reply->getBody(), $reply->get('correlation_id')], ['hey!', '42']);
    },

    'rpc-queue' => function ($channel) use (&$connection) {
        $requests = queue($channel);
        $caller = $connection->channel();
        $answered = $caller->queue_declare('', exclusive: true)[0];
        [$served, $replies] = [new Inbox($channel, $requests), new Inbox($caller, $answered, no_ack: true)];
        for ($i = 0; $i < 10; $i++) {
            $caller->basic_publish(message("$i", ['reply_to' => $answered, 'correlation_id' => "$i"]), '', $requests);
        }
        for ($i = 0; $i < 10; $i++) {
            $request = $served->next();
            $channel->basic_publish(message($request->getBody(), ['correlation_id' => $request->get('correlation_id')]), '', $request->get('reply_to'));
            $request->ack();
        }
        for ($i = 0; $i < 10; $i++) {
            $reply = $replies->next();
            equal($reply->getBody(), $reply->get('correlation_id'));
        }
    },

    'closed-channel' => function ($channel) use (&$connection) {
        $none = name('none');
        $channel->basic_publish(message(), $none, 'k');
        refused(404, "NOT_FOUND - no exchange '$none' in vhost '/'", fn() => $channel->wait(null, false, WAIT_S));
        equal($channel->is_open(), false);
        queue($connection->channel());
    },

    'closed-connection' => function () {
        $opened = connect();
        $channel = $opened->channel();
        $channel->basic_publish(message(), '', 'k', false, true);
        refused(540, 'NOT_IMPLEMENTED - immediate=true', fn() => $channel->wait(null, false, WAIT_S));
        equal($opened->isConnected(), false);
        connect()->close();
    },

    'recovery' => function ($channel, $confirming) use ($relayPort) {
        $recovering = connect(function ($config) use ($relayPort) {
            $config->setHost('127.0.0.1');
            $config->setPort((int) $relayPort);
        });
        $set_up = function ($named) use ($recovering) {
            $its = $recovering->channel();
            $its->queue_declare($named, exclusive: true, auto_delete: false);
            return new Inbox($its, $named, no_ack: true);
        };
        $named = name('q');
        $inbox = $set_up($named);
        publish($confirming, '', $named, message('before'));
        equal($inbox->next()->getBody(), 'before');
        say(['ask' => 'cut']);
        fgets(STDIN);
        try {
            $inbox->next();
        } catch (AMQPExceptionInterface $cut) {
            for ($end = microtime(true) + WAIT_S; ; usleep(50000)) {
                try {
                    $recovering->reconnect(); // the library leaves the rest to its user
                    $inbox = $set_up($named);
                    break;
                } catch (AMQPProtocolChannelException $locked) { // the broker has not seen yet that the old connection is gone
                    if (microtime(true) > $end) {
                        throw $locked;
                    }
                }
            }
        }
        publish($confirming, '', $named, message('after'));
        equal($inbox->next()->getBody(), 'after');
        $recovering->close();
    },
];

say(['client' => 'php-amqplib', 'version' => Package::VERSION]);
foreach ($steps as $step => $run) {
    $opened = [];
    try {
        if (!$connection || !$connection->isConnected()) {
            $connection = connect(fn($config) => $config->setConnectionName($prefix));
        }
        $opened = [$connection->channel(), $connection->channel()];
        $opened[1]->confirm_select();
        $run(...$opened);
        say(['step' => $step, 'outcome' => 'ok']);
    } catch (Absent $absent) {
        say(['step' => $step, 'outcome' => 'absent', 'detail' => $absent->getMessage()]);
    } catch (Throwable $error) {
        say(['step' => $step, 'outcome' => 'failed', 'detail' => (string) $error]);
    }
    foreach ($opened as $channel) {
        try {
            $channel->close();
        } catch (Throwable) { // it is closed
        }
    }
}
$connection->close();
