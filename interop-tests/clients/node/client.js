// Uses most of amqplib's API against a broker: one line of JSON for each step (see ../steps.py).
'use strict';

const assert = require('node:assert/strict');
const readline = require('node:readline');
const amqp = require('amqplib');
const {version} = JSON.parse(require('node:fs').readFileSync(`${__dirname}/node_modules/amqplib/package.json`));

const [url, prefix, relayPort] = process.argv.slice(2);
const WAIT_MS = 10000;
const answers = readline.createInterface({input: process.stdin})[Symbol.asyncIterator]();
let connection;
let count = 0;

const say = (line) => process.stdout.write(JSON.stringify(line) + '\n');
const name = (word) => `${prefix}.${word}.${++count}`;
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

class Absent extends Error {}

async function within(promise, what) {
  let timer;
  const late = new Promise((_, fail) => {
    timer = setTimeout(() => fail(new Error(`waited too long for ${what}`)), WAIT_MS);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

const event = (emitter, word) => within(new Promise((done) => emitter.once(word, done)), word);

async function until(condition, what) {
  const end = Date.now() + WAIT_MS;
  while (!(await condition())) {
    if (Date.now() > end) throw new Error(`waited too long until ${what}`);
    await sleep(10);
  }
}

async function connect(changes = {}, properties = {}) {
  const opened = await amqp.connect(changes.url || url, {clientProperties: properties, timeout: WAIT_MS, ...changes});
  opened.on('error', () => {});
  return opened;
}

async function open(opened = connection, confirming = false) {
  const channel = await (confirming ? opened.createConfirmChannel() : opened.createChannel());
  channel.on('error', () => {});
  return channel;
}

async function refused(action, code, ...texts) {
  const error = await within(action.then(() => assert.fail(`not refused: ${texts}`), (raised) => raised), `${code}`);
  assert.ok(error.code === code || error.message.includes(code), error.message);
  for (const text of texts) assert.ok(error.message.includes(text), error.message);
}

// What a channel delivers, waited for.
class Inbox {
  constructor(channel) {
    this.channel = channel;
    this.messages = [];
    this.cancelled = false;
  }

  async consume(queue, options) {
    const take = (message) => (message === null ? (this.cancelled = true) : this.messages.push(message));
    this.tag = (await this.channel.consume(queue, take, options)).consumerTag;
    return this;
  }

  async next(number = 1) {
    await until(() => this.messages.length >= number, `${number} deliveries`);
    return this.messages.splice(0, number);
  }
}

const texts = (messages) => messages.map((message) => message.content.toString());

async function queue(channel, options = {}) {
  return (await channel.assertQueue(name('q'), {exclusive: true, durable: false, ...options})).queue;
}

async function exchange(channel, type, options = {}) {
  return (await channel.assertExchange(name('x'), type, {durable: false, autoDelete: true, ...options})).exchange;
}

async function get(channel, from, options) {
  let message;
  await until(async () => (message = await channel.get(from, options)), `there is a message in ${from}`);
  return message;
}

async function published(channel, to, key, content, options = {}) {
  channel.publish(to, key, Buffer.from(content), options);
  if (channel.waitForConfirms) await within(channel.waitForConfirms(), 'confirms');
}

// Who of the queues has got the message?
async function routed(channel, source, key, queues, options) {
  await published(channel, source, key, 'm', options);
  const reached = [];
  for (const [word, each] of Object.entries(queues)) if (await channel.get(each, {noAck: true})) reached.push(word);
  return reached.join(' ');
}

const steps = {
  async connect() {
    const opened = await connect({url: `${url}?heartbeat=7&frameMax=8192&channelMax=50`}, {connection_name: prefix});
    assert.equal(opened.connection.heartbeat, 7);
    assert.equal(opened.connection.frameMax, 8192);
    assert.equal(opened.connection.channelMax, 50);
    await opened.close();
  },

  async 'server-properties'() {
    const {capabilities, product, version: text} = connection.connection.serverProperties;
    assert.ok(product && text);
    for (const word of ['publisher_confirms', 'exchange_exchange_bindings', 'basic.nack', 'consumer_cancel_notify',
      'connection.blocked', 'consumer_priorities', 'authentication_failure_close', 'per_consumer_qos', 'direct_reply_to']) {
      assert.equal(capabilities[word], true, word);
    }
  },

  async 'wrong-password'() {
    const wrong = new URL(url);
    wrong.password = 'wrong';
    await refused(connect({url: wrong.href}), 403, 'ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN');
  },

  async 'unknown-vhost'() {
    const wrong = new URL(url);
    wrong.pathname = '/nowhere';
    await assert.rejects(connect({url: wrong.href}), /ConnectionClose/); // it does not tell more
  },

  async 'many-channels'() {
    const opened = await connect();
    const channels = await Promise.all(Array.from({length: 100}, () => open(opened)));
    await Promise.all(channels.map((channel) => queue(channel)));
    await Promise.all(channels.slice(50).map((channel) => channel.close()));
    await queue(channels[0]);
    await opened.close();
  },

  async 'blocked-listener'() {
    connection.on('blocked', () => {}).on('unblocked', () => {});
  },

  async 'update-secret'() {
    await within(connection.updateSecret(Buffer.from(decodeURIComponent(new URL(url).password)), 'because'), 'update-secret-ok');
  },

  async 'declare-queue'(channel) {
    const named = await queue(channel, {autoDelete: true});
    const again = await channel.assertQueue(named, {exclusive: true, durable: false, autoDelete: true});
    assert.deepEqual(again, {queue: named, messageCount: 0, consumerCount: 0});
    channel.sendToQueue(named, Buffer.from('one'));
    await new Inbox(channel).consume(await queue(channel));
    await until(async () => (await channel.checkQueue(named)).messageCount === 1, 'the message counts');
    assert.match((await channel.assertQueue('', {exclusive: true})).queue, /^amq\.gen-/);
  },

  async 'queue-arguments'(channel) {
    const options = {
      exclusive: true, durable: false, messageTtl: 60000, expires: 60000, deadLetterExchange: '', deadLetterRoutingKey: 'k',
      maxLength: 10, maxPriority: 5,
      arguments: {'x-max-length-bytes': 1000, 'x-overflow': 'reject-publish', 'x-single-active-consumer': true, 'x-queue-mode': 'lazy'},
    };
    const named = name('q');
    await channel.assertQueue(named, options);
    await channel.assertQueue(named, options);
  },

  async 'unknown-queue'(channel) {
    await refused(channel.checkQueue(name('none')), 404, "NOT_FOUND - no queue '", "' in vhost '/'");
    await queue(await open());
  },

  async 'other-properties'(channel) {
    const named = await queue(channel, {messageTtl: 1000});
    await refused(
      channel.assertQueue(named, {exclusive: true, durable: false, messageTtl: 2000}), 406,
      `PRECONDITION_FAILED - inequivalent arg 'x-message-ttl' for queue '${named}' in vhost '/': received '2000' but current is '1000'`,
    );
  },

  async 'locked-queue'(channel) {
    const named = await queue(channel);
    const other = await connect();
    await refused((await open(other)).checkQueue(named), 405, `RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '${named}' in vhost '/'`);
    await other.close();
  },

  async 'exchange-types'(channel) {
    for (const type of ['direct', 'fanout', 'topic', 'headers']) {
      const named = await exchange(channel, type, {durable: true, autoDelete: false, internal: type === 'fanout', arguments: {note: 1}});
      await channel.assertExchange(named, type, {durable: true, internal: type === 'fanout', arguments: {note: 1}});
      await channel.checkExchange(named);
      await channel.deleteExchange(named, {ifUnused: true});
    }
    await refused(channel.checkExchange(name('none')), 404, "NOT_FOUND - no exchange '", "' in vhost '/'");
  },

  async 'route-direct'(channel) {
    const [source, a, b] = [await exchange(channel, 'direct'), await queue(channel), await queue(channel)];
    await channel.bindQueue(a, source, 'red');
    await channel.bindQueue(b, source, 'red');
    await channel.bindQueue(b, source, 'blue');
    assert.equal(await routed(channel, source, 'red', {a, b}), 'a b');
    assert.equal(await routed(channel, source, 'blue', {a, b}), 'b');
    await channel.unbindQueue(b, source, 'red');
    assert.equal(await routed(channel, source, 'red', {a, b}), 'a');
  },

  async 'route-fanout'(channel) {
    const [source, a, b] = [await exchange(channel, 'fanout'), await queue(channel), await queue(channel)];
    await channel.bindQueue(a, source, '');
    await channel.bindQueue(b, source, 'ignored');
    assert.equal(await routed(channel, source, 'any', {a, b}), 'a b');
  },

  async 'route-topic'(channel) {
    const [source, a, b, c] = [await exchange(channel, 'topic'), await queue(channel), await queue(channel), await queue(channel)];
    await channel.bindQueue(a, source, '*.orange.*');
    await channel.bindQueue(b, source, 'lazy.#');
    await channel.bindQueue(c, source, '#');
    assert.equal(await routed(channel, source, 'quick.orange.fox', {a, b, c}), 'a c');
    assert.equal(await routed(channel, source, 'lazy.orange.elephant', {a, b, c}), 'a b c');
    assert.equal(await routed(channel, source, 'lazy', {a, b, c}), 'b c');
    assert.equal(await routed(channel, source, '', {a, b, c}), 'c');
  },

  async 'route-headers'(channel) {
    const [source, a, b] = [await exchange(channel, 'headers'), await queue(channel), await queue(channel)];
    await channel.bindQueue(a, source, '', {'x-match': 'all', size: 1, colour: 'red'});
    await channel.bindQueue(b, source, '', {'x-match': 'any', size: 1, colour: 'red'});
    assert.equal(await routed(channel, source, '', {a, b}, {headers: {size: 1, colour: 'red'}}), 'a b');
    assert.equal(await routed(channel, source, '', {a, b}, {headers: {size: 2, colour: 'red'}}), 'b');
    assert.equal(await routed(channel, source, '', {a, b}, {headers: {size: 2}}), '');
  },

  async 'exchange-to-exchange'(channel) {
    const [source, target, a] = [await exchange(channel, 'topic', {autoDelete: false}), await exchange(channel, 'fanout'), await queue(channel)];
    await channel.bindQueue(a, target, '');
    await channel.bindExchange(target, source, 'x.*', {note: 'kept'});
    assert.equal(await routed(channel, source, 'x.1', {a}), 'a');
    await channel.unbindExchange(target, source, 'x.*', {note: 'kept'});
    assert.equal(await routed(channel, source, 'x.1', {a}), '');
    await channel.deleteExchange(source);
  },

  async 'alternate-exchange'(channel) {
    const [spare, a] = [await exchange(channel, 'fanout'), await queue(channel)];
    const source = await exchange(channel, 'direct', {alternateExchange: spare, autoDelete: false});
    await channel.bindQueue(a, spare, '');
    assert.equal(await routed(channel, source, 'unrouted', {a}), 'a');
    await channel.deleteExchange(source);
  },

  async 'default-exchange'(channel) {
    const a = await queue(channel);
    assert.equal(await routed(channel, '', a, {a}), 'a');
    await refused(channel.bindQueue(a, '', 'k'), 403, 'ACCESS_REFUSED - operation not permitted on the default exchange');
  },

  async 'purge-delete'(_, confirming) {
    const a = await queue(confirming);
    for (let i = 0; i < 5; i++) confirming.sendToQueue(a, Buffer.from('m'));
    await confirming.waitForConfirms();
    assert.equal((await confirming.purgeQueue(a)).messageCount, 5);
    await published(confirming, '', a, 'm');
    assert.equal((await confirming.deleteQueue(a)).messageCount, 1);
    assert.equal((await confirming.deleteQueue(a)).messageCount, 0);
  },

  async 'delete-conditions'(channel, confirming) {
    const a = await queue(channel);
    await published(confirming, '', a, 'm');
    await refused((await open()).deleteQueue(a, {ifEmpty: true}), 406, `PRECONDITION_FAILED - queue '${a}' in vhost '/' not empty`);
    await new Inbox(channel).consume(a);
    await refused((await open()).deleteQueue(a, {ifUnused: true}), 406, `PRECONDITION_FAILED - queue '${a}' in vhost '/' in use`);
  },

  async properties(channel, confirming) {
    const a = await queue(channel);
    const sent = {
      contentType: 'application/json', contentEncoding: 'utf-8', headers: {h: 1}, deliveryMode: 2, priority: 7,
      correlationId: 'c-1', replyTo: 'r', expiration: '60000', messageId: 'm-1', timestamp: 1700000000, type: 't',
      userId: decodeURIComponent(new URL(url).username), appId: 'app',
    };
    await published(confirming, '', a, '{}', sent);
    const {properties, fields} = await get(channel, a, {noAck: true});
    assert.deepEqual({...properties}, {...sent, clusterId: undefined});
    assert.deepEqual([fields.exchange, fields.routingKey, fields.redelivered], ['', a, false]);
  },

  async headers(channel, confirming) {
    const a = await queue(channel);
    const headers = {
      text: 'gr\u00fc\u00df \u{1f407}', empty: '', yes: true, no: false, byte: -100, short: -30000, int: 2000000000, long: 2 ** 45,
      double: 1.5, nothing: null, list: [1, 'two', [3], {four: 4}], table: {deep: {deeper: ['x']}},
      bytes: Buffer.from([0, 255, 1]), time: {'!': 'timestamp', value: 1700000000}, decimal: {'!': 'decimal', value: {places: 2, digits: 314}},
      float: {'!': 'float', value: 0.25},
    };
    await published(confirming, '', a, '', {headers});
    const got = (await get(channel, a, {noAck: true})).properties.headers;
    assert.deepEqual(got, {...headers, float: 0.25});
  },

  async large(channel, confirming) {
    const a = await queue(channel);
    const content = Buffer.alloc(1 << 20, 'the quick brown fox ');
    await published(confirming, '', a, content);
    assert.ok((await get(channel, a, {noAck: true})).content.equals(content));
    const small = await connect({url: `${url}?frameMax=4096`});
    assert.equal(small.connection.frameMax, 4096);
    const again = await open(small, true);
    const own = await queue(again);
    await published(again, '', own, content);
    assert.ok((await get(again, own, {noAck: true})).content.equals(content));
    await small.close();
  },

  async empty(channel, confirming) {
    const a = await queue(channel);
    await published(confirming, '', a, '');
    assert.equal((await get(channel, a, {noAck: true})).content.length, 0);
  },

  async mandatory(channel) {
    const back = event(channel, 'return');
    channel.publish('', name('none'), Buffer.from('lost'), {mandatory: true, messageId: 'm'});
    const message = await back;
    assert.equal(message.content.toString(), 'lost');
    assert.deepEqual([message.fields.replyCode, message.fields.replyText, message.properties.messageId], [312, 'NO_ROUTE', 'm']);
  },

  async confirm(_, confirming) {
    const a = await queue(confirming);
    await within(new Promise((done, fail) => confirming.sendToQueue(a, Buffer.from('m'), {persistent: true}, (error) => (error ? fail(error) : done()))), 'the confirm');
    assert.equal((await confirming.checkQueue(a)).messageCount, 1);
    let returned = false;
    confirming.on('return', () => (returned = true));
    await published(confirming, '', name('none'), 'm', {mandatory: true});
    assert.ok(returned, 'the return comes before the confirm');
  },

  async 'confirm-many'(_, confirming) {
    const a = await queue(confirming);
    for (let i = 0; i < 1000; i++) confirming.sendToQueue(a, Buffer.from(`${i}`));
    await within(confirming.waitForConfirms(), 'a thousand confirms');
    assert.equal((await confirming.checkQueue(a)).messageCount, 1000);
  },

  async 'confirm-nack'(_, confirming) {
    const a = await queue(confirming, {maxLength: 1, arguments: {'x-overflow': 'reject-publish'}});
    await published(confirming, '', a, 'fits');
    confirming.sendToQueue(a, Buffer.from('does not'));
    await assert.rejects(within(confirming.waitForConfirms(), 'the nack'), /nack/);
  },

  async get(channel, confirming) {
    const a = await queue(channel);
    assert.equal(await channel.get(a), false);
    await published(confirming, '', a, '1');
    await published(confirming, '', a, '2');
    const first = await channel.get(a);
    assert.deepEqual([first.content.toString(), first.fields.messageCount], ['1', 1]);
    channel.ack(first);
    assert.equal((await channel.get(a, {noAck: true})).fields.messageCount, 0);
  },

  async 'consume-ack'(channel, confirming) {
    const a = await queue(channel);
    const inbox = await new Inbox(channel).consume(a, {consumerTag: 'mine'});
    assert.equal(inbox.tag, 'mine');
    for (const text of '12345') await published(confirming, '', a, text);
    const messages = await inbox.next(5);
    assert.equal(texts(messages).join(''), '12345');
    assert.deepEqual(messages.map(({fields}) => fields.deliveryTag), [1, 2, 3, 4, 5]);
    assert.equal(messages[0].fields.consumerTag, 'mine');
    channel.ack(messages[2], true);
    channel.ack(messages[4]);
    await channel.close();
    const left = await get(confirming, a);
    assert.deepEqual([left.content.toString(), left.fields.redelivered, left.fields.messageCount], ['4', true, 0]);
  },

  async 'consume-no-ack'(channel, confirming) {
    const a = await queue(channel);
    const inbox = await new Inbox(channel).consume(a, {noAck: true});
    for (const text of '123') await published(confirming, '', a, text);
    await inbox.next(3);
    await channel.close();
    assert.equal(await confirming.get(a), false);
  },

  async nack(channel, confirming) {
    const a = await queue(channel);
    for (const text of '123') await published(confirming, '', a, text);
    const messages = [await get(channel, a), await get(channel, a), await get(channel, a)];
    channel.nack(messages[1], true, true);
    channel.nack(messages[2], false, false);
    const again = [await get(channel, a), await get(channel, a)];
    assert.equal(texts(again).join(''), '12');
    assert.ok(again.every(({fields}) => fields.redelivered));
    assert.equal(await channel.get(a), false);
  },

  async reject(channel, confirming) {
    const a = await queue(channel);
    await published(confirming, '', a, 'm');
    channel.reject(await get(channel, a), true);
    const again = await get(channel, a);
    assert.equal(again.fields.redelivered, true);
    channel.reject(again, false);
    assert.equal(await channel.get(a), false);
  },

  async recover(channel, confirming) {
    const a = await queue(channel);
    await published(confirming, '', a, 'm');
    const inbox = await new Inbox(channel).consume(a);
    await inbox.next();
    await channel.recover();
    assert.equal((await inbox.next())[0].fields.redelivered, true);
  },

  async prefetch(channel, confirming) {
    const a = await queue(channel);
    for (const text of '12345') await published(confirming, '', a, text);
    await channel.prefetch(2);
    const inbox = await new Inbox(channel).consume(a);
    const first = await inbox.next(2);
    assert.equal((await confirming.checkQueue(a)).messageCount, 3);
    assert.equal(inbox.messages.length, 0);
    channel.ack(first[1], true);
    assert.equal(texts(await inbox.next(2)).join(''), '34');
    await channel.prefetch(3, true);
  },

  async cancel(channel, confirming) {
    const a = await queue(channel);
    const inbox = await new Inbox(channel).consume(a);
    assert.equal((await confirming.checkQueue(a)).consumerCount, 1);
    await channel.cancel(inbox.tag);
    await published(confirming, '', a, 'm');
    const {messageCount, consumerCount} = await confirming.checkQueue(a);
    assert.deepEqual([messageCount, consumerCount, inbox.messages.length], [1, 0, 0]);
  },

  async 'server-cancel'(channel, confirming) {
    const a = await queue(channel);
    const inbox = await new Inbox(channel).consume(a);
    await confirming.deleteQueue(a);
    await until(() => inbox.cancelled, 'the consumer is cancelled');
    await queue(channel);
  },

  async 'exclusive-consumer'(channel, confirming) {
    const a = await queue(channel);
    await new Inbox(channel).consume(a, {exclusive: true});
    await refused(new Inbox(confirming).consume(a), 403, `ACCESS_REFUSED - queue '${a}' in vhost '/' in exclusive use`);
  },

  async 'consumer-priority'(channel, confirming) {
    const a = await queue(channel);
    const low = await new Inbox(channel).consume(a, {noAck: true});
    const high = await new Inbox(channel).consume(a, {noAck: true, priority: 10});
    for (const text of '123') await published(confirming, '', a, text);
    await high.next(3);
    assert.equal(low.messages.length, 0);
  },

  async 'unknown-delivery-tag'(channel) {
    const closed = event(channel, 'error');
    channel.ack({fields: {deliveryTag: 99}});
    assert.equal((await closed).message.includes('PRECONDITION_FAILED - unknown delivery tag 99'), true);
  },

  async 'message-ttl'(channel, confirming) {
    const dead = await queue(channel);
    const a = await queue(channel, {deadLetterExchange: '', deadLetterRoutingKey: dead});
    await published(confirming, '', a, 'm', {expiration: '20', headers: {kept: 'yes'}});
    const {headers, expiration} = (await get(channel, dead, {noAck: true})).properties;
    const [death] = headers['x-death'];
    assert.deepEqual(
      [death.queue, death.exchange, death['routing-keys'], death.reason, death.count, death['original-expiration'], death.time['!']],
      [a, '', [a], 'expired', 1, '20', 'timestamp'],
    );
    assert.deepEqual([headers.kept, headers['x-first-death-queue'], headers['x-first-death-reason'], expiration], ['yes', a, 'expired', undefined]);
  },

  async 'dead-letter-rejected'(channel, confirming) {
    const [dlx, a] = [await exchange(channel, 'direct'), name('q')];
    const dead = await queue(channel, {deadLetterExchange: '', deadLetterRoutingKey: a});
    await channel.assertQueue(a, {exclusive: true, durable: false, deadLetterExchange: dlx, deadLetterRoutingKey: 'dead'});
    await channel.bindQueue(dead, dlx, 'dead');
    await published(confirming, '', a, 'm');
    channel.nack(await get(channel, a), false, false);
    channel.reject(await get(channel, dead), false);
    channel.reject(await get(channel, a), false);
    const {fields, properties} = await get(channel, dead);
    assert.deepEqual([fields.exchange, fields.routingKey], [dlx, 'dead']);
    const deaths = properties.headers['x-death'].map((death) => [death.queue, death.reason, death.count, death['routing-keys'][0]]);
    assert.deepEqual(deaths, [[a, 'rejected', 2, a], [dead, 'rejected', 1, 'dead']]);
  },

  async 'max-length'(channel, confirming) {
    const dead = await queue(channel);
    const a = await queue(channel, {maxLength: 2, deadLetterExchange: '', deadLetterRoutingKey: dead});
    for (const text of '123') await published(confirming, '', a, text);
    const dropped = await get(channel, dead, {noAck: true});
    assert.deepEqual([dropped.content.toString(), dropped.properties.headers['x-death'][0].reason], ['1', 'maxlen']);
    assert.equal((await channel.get(a, {noAck: true})).content.toString(), '2');
  },

  async priority(channel, confirming) {
    const a = await queue(channel, {maxPriority: 5});
    for (const level of [0, 1, 5, 3, 9]) await published(confirming, '', a, `${level}`, {priority: level});
    let order = '';
    for (let i = 0; i < 5; i++) order += (await get(channel, a, {noAck: true})).content;
    assert.equal(order, '59310');
  },

  async 'tx-commit'() {
    throw new Absent('no transactions');
  },

  async 'tx-rollback'() {
    throw new Absent('no transactions');
  },

  async 'direct-reply-to'(channel) {
    const requests = await queue(channel);
    await channel.consume(requests, ({content, properties}) =>
      channel.sendToQueue(properties.replyTo, Buffer.from(`${content}!`), {correlationId: properties.correlationId}), {noAck: true});
    const caller = await open();
    const replies = await new Inbox(caller).consume('amq.rabbitmq.reply-to', {noAck: true});
    caller.sendToQueue(requests, Buffer.from('hey'), {replyTo: 'amq.rabbitmq.reply-to', correlationId: '42'});
    const [reply] = await replies.next();
    assert.deepEqual([reply.content.toString(), reply.properties.correlationId], ['hey!', '42']);
  },

  async 'rpc-queue'(channel) {
    const requests = await queue(channel);
    await channel.consume(requests, (message) => {
      channel.sendToQueue(message.properties.replyTo, Buffer.from(`${message.content * 2}`), {correlationId: message.properties.correlationId});
      channel.ack(message);
    });
    const caller = await open();
    const answered = (await caller.assertQueue('', {exclusive: true})).queue;
    const replies = await new Inbox(caller).consume(answered, {noAck: true});
    for (let i = 0; i < 10; i++) caller.sendToQueue(requests, Buffer.from(`${i}`), {replyTo: answered, correlationId: `${i}`});
    for (const reply of await replies.next(10)) assert.equal(Number(reply.content), reply.properties.correlationId * 2);
  },

  async 'closed-channel'(channel) {
    const none = name('none');
    const closed = event(channel, 'error');
    channel.publish(none, 'k', Buffer.from('m'));
    const error = await closed;
    assert.deepEqual([error.code, error.classId, error.methodId], [404, 60, 40]);
    assert.ok(error.message.includes(`NOT_FOUND - no exchange '${none}' in vhost '/'`), error.message);
    await queue(await open());
  },

  async 'closed-connection'() {
    const opened = await connect();
    const closed = event(opened, 'error');
    opened.connection.stream.write(Buffer.from('0100630000000d003c0050000000000000000100ce', 'hex')); // an ack on an unopened channel
    const error = await closed;
    assert.equal(error.code, 504);
    assert.ok(error.message.includes("CHANNEL_ERROR - expected 'channel.open'"), error.message);
    await (await connect()).close();
  },

  async recovery(channel, confirming) {
    const through = new URL(url);
    through.port = relayPort;
    const [named, got] = [name('q'), []];
    const setup = async (model) => {
      const own = await model.createChannel();
      await own.assertQueue(named, {durable: false, arguments: {'x-expires': 60000}});
      await own.consume(named, (message) => message && got.push(message.content.toString()), {noAck: true});
    };
    const recovering = await amqp.connect(through.href, {recovery: {initialDelay: 20, setup}});
    recovering.on('error', () => {}).on('disconnect', () => {});
    await published(confirming, '', named, 'before');
    await until(() => got.includes('before'), 'the first message arrives');
    const back = event(recovering, 'connect');
    say({ask: 'cut'});
    await answers.next();
    await back;
    await published(confirming, '', named, 'after');
    await until(() => got.includes('after'), 'a message arrives after the cut');
    await recovering.close();
    await channel.deleteQueue(named);
  },
};

async function main() {
  say({client: 'amqplib', version});
  const quiet = await connect({url: `${url}?heartbeat=1`});
  const since = Date.now();
  let died = false;
  quiet.on('close', () => (died = true));
  steps.idle = async () => {
    await sleep(Math.max(0, since + 3500 - Date.now()));
    assert.equal(died, false);
    await queue(await open(quiet));
  };

  for (const [step, run] of Object.entries(steps)) {
    let opened = [];
    try {
      if (!connection || connection.connection.closed) connection = await connect({}, {connection_name: prefix});
      opened = [await open(), await open(connection, true)];
      await run(...opened);
      say({step, outcome: 'ok'});
    } catch (error) {
      if (error instanceof Absent) say({step, outcome: 'absent', detail: error.message});
      else say({step, outcome: 'failed', detail: String(error.stack || error)});
    }
    for (const channel of opened) await channel.close().catch(() => {});
  }
  await connection.close();
  await quiet.close();
}

main().then(() => process.exit(0));
