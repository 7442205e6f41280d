# Uses most of Bunny's API against a broker: one line of JSON for each step (see ../../programs.py).

require 'bigdecimal'
require 'bunny'
require 'json'
require 'logger'
require 'timeout'

URL, PREFIX, RELAY_PORT = ARGV
WAIT_S = 10
STEPS = {}
$stdout.sync = true
$count = 0
$connection = nil

class Absent < StandardError; end

def say(line) = puts(JSON.generate(line))
def name(word) = "#{PREFIX}.#{word}.#{$count += 1}"
def step(word, &run) = STEPS[word] = run

def equal(got, expected)
  raise "got #{got.inspect} instead of #{expected.inspect}" unless got == expected
end

def starts(got, expected)
  raise "got #{got} instead of #{expected}" unless got.start_with?(expected)
end

def refused(error, code, text)
  yield
rescue error => raised
  close = raised.respond_to?(:channel_close) ? raised.channel_close : raised.connection_close
  equal(close.reply_code, code)
  starts(close.reply_text, text)
else
  raise "not refused: #{text}"
end

def next_of(queue) = Timeout.timeout(WAIT_S) { queue.pop }

def till(what)
  give_up = Time.now + WAIT_S
  until (value = yield)
    raise "waited too long until #{what}" if Time.now > give_up

    sleep 0.01
  end
  value
end

def connect(**options)
  opened = Bunny.new(URL, {automatically_recover: false, logger: Logger.new(File::NULL), continuation_timeout: WAIT_S * 1000, **options})
  opened.start
end

def queue(channel, **arguments) = channel.queue(name('q'), exclusive: true, arguments: arguments)
def named(queue) = queue.is_a?(String) ? queue : queue.name

def exchange(channel, type, **options) = channel.exchange(name('x'), type: type, auto_delete: true, **options)

def publish(confirming, to, key, body = 'm', **options)
  confirming.basic_publish(body, to, key, options)
  raise 'nacked' unless Timeout.timeout(WAIT_S) { confirming.wait_for_confirms }
end

def send_to(confirming, queue, *bodies) = bodies.each { |body| publish(confirming, '', named(queue), body) }

Message = Struct.new(:info, :properties, :body)

def get(channel, from, manual_ack: true)
  got = till("there is a message in #{named(from)}") do
    found = channel.basic_get(named(from), manual_ack: manual_ack)
    found if found.first
  end
  Message.new(*got)
end

def empty?(channel, from) = channel.basic_get(named(from), manual_ack: false).first.nil?

def consume(channel, from, manual_ack: false, **options)
  deliveries = Queue.new
  consumer = channel.queue(named(from), passive: true).subscribe(manual_ack: manual_ack, **options) { |*parts| deliveries << Message.new(*parts) }
  [deliveries, consumer]
end

# Who of the queues gets the message?
def routed(confirming, source, key, queues, headers = {})
  publish(confirming, source.name, key, headers: headers)
  queues.reject { |_, each| empty?(confirming, each) }.keys.join
end

def counts(channel, queue)
  ok = channel.queue_declare(named(queue), passive: true)
  [ok.message_count, ok.consumer_count]
end

step 'connect' do
  opened = connect(heartbeat: 7, frame_max: 8192, channel_max: 50, connection_name: PREFIX)
  equal([opened.heartbeat, opened.frame_max, opened.channel_max, opened.connection_name], [7, 8192, 50, PREFIX])
  opened.close
end

step 'server-properties' do
  capabilities = $connection.server_properties['capabilities']
  %w[publisher_confirms exchange_exchange_bindings basic.nack consumer_cancel_notify connection.blocked consumer_priorities
     authentication_failure_close per_consumer_qos direct_reply_to].each { |word| equal([word, capabilities[word]], [word, true]) }
  equal($connection.server_locales, ['en_US'])
end

step 'wrong-password' do
  connect(password: 'wrong')
rescue Bunny::AuthenticationFailureError => error
  equal(error.username, $connection.user)
else
  raise 'not refused'
end

step 'unknown-vhost' do
  connect(vhost: 'nowhere')
rescue Bunny::NotAllowedError => error
  starts(error.connection_close.reply_text, 'NOT_ALLOWED - vhost nowhere not found')
else
  raise 'not refused'
end

step 'many-channels' do
  opened = connect
  channels = Array.new(100) { opened.create_channel }
  channels.each { |each| queue(each) }
  channels[50..].each(&:close)
  queue(channels.first)
  opened.with_channel { |one| queue(one) }
  opened.close
end

step 'blocked-listener' do
  $connection.on_blocked { |_blocked| }
  $connection.on_unblocked { |_unblocked| }
  equal($connection.blocked?, false)
end

step 'update-secret' do
  ok = $connection.update_secret($connection.pass, 'because')
  equal(ok.class, AMQ::Protocol::Connection::UpdateSecretOk)
end

step 'declare-queue' do |channel, confirming|
  mine = queue(channel)
  ok = channel.queue_declare(mine.name, exclusive: true)
  equal([ok.queue, ok.message_count, ok.consumer_count], [mine.name, 0, 0])
  send_to(confirming, mine, 'one')
  equal(mine.status, {message_count: 1, consumer_count: 0})
  equal($connection.queue_exists?(mine.name), true)
  own = channel.temporary_queue
  starts(own.name, 'amq.gen-')
  equal(own.server_named?, true)
end

step 'queue-arguments' do |channel|
  arguments = {
    'x-message-ttl' => 60_000, 'x-expires' => 60_000, 'x-max-length' => 10, 'x-max-length-bytes' => 1000, 'x-overflow' => 'reject-publish',
    'x-dead-letter-exchange' => '', 'x-dead-letter-routing-key' => 'k', 'x-max-priority' => 5, 'x-single-active-consumer' => true,
    'x-queue-mode' => 'lazy',
  }
  channel.queue_declare(queue(channel, **arguments).name, exclusive: true, arguments: arguments)
end

step 'unknown-queue' do |channel|
  none = name('none')
  refused(Bunny::NotFound, 404, "NOT_FOUND - no queue '#{none}' in vhost '/'") { channel.queue_declare(none, passive: true) }
  equal($connection.queue_exists?(none), false)
  queue($connection.create_channel)
end

step 'other-properties' do |channel|
  mine = queue(channel, 'x-message-ttl' => 1000).name
  text = "PRECONDITION_FAILED - inequivalent arg 'x-message-ttl' for queue '#{mine}' in vhost '/': received '2000' but current is '1000'"
  refused(Bunny::PreconditionFailed, 406, text) do
    channel.queue_declare(mine, exclusive: true, arguments: {'x-message-ttl' => 2000})
  end
end

step 'locked-queue' do |channel|
  mine = queue(channel).name
  other = connect
  text = "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '#{mine}' in vhost '/'"
  refused(Bunny::ResourceLocked, 405, text) { other.create_channel.queue_declare(mine, passive: true) }
  other.close
end

step 'exchange-types' do |channel|
  %w[direct fanout topic headers].each do |type|
    mine = name('x')
    options = {durable: true, internal: type == 'fanout', arguments: {'note' => 1}}
    2.times { channel.exchange_declare(mine, type, options) }
    channel.exchange_declare(mine, type, passive: true)
    equal($connection.exchange_exists?(mine), true)
    channel.exchange_delete(mine, if_unused: true)
  end
  none = name('none')
  refused(Bunny::NotFound, 404, "NOT_FOUND - no exchange '#{none}' in vhost '/'") { channel.exchange_declare(none, 'direct', passive: true) }
end

step 'route-direct' do |channel, confirming|
  source, a, b = exchange(channel, 'direct'), queue(channel), queue(channel)
  a.bind(source, routing_key: 'red')
  b.bind(source, routing_key: 'red').bind(source, routing_key: 'blue')
  equal(routed(confirming, source, 'red', {a: a, b: b}), 'ab')
  equal(routed(confirming, source, 'blue', {a: a, b: b}), 'b')
  b.unbind(source, routing_key: 'red')
  equal(routed(confirming, source, 'red', {a: a, b: b}), 'a')
end

step 'route-fanout' do |channel, confirming|
  source, a, b = exchange(channel, 'fanout'), queue(channel), queue(channel)
  a.bind(source)
  b.bind(source, routing_key: 'ignored')
  equal(routed(confirming, source, 'any', {a: a, b: b}), 'ab')
end

step 'route-topic' do |channel, confirming|
  source, a, b, c = exchange(channel, 'topic'), queue(channel), queue(channel), queue(channel)
  a.bind(source, routing_key: '*.orange.*')
  b.bind(source, routing_key: 'lazy.#')
  c.bind(source, routing_key: '#')
  {'quick.orange.fox' => 'ac', 'lazy.orange.elephant' => 'abc', 'lazy' => 'bc', '' => 'c'}.each do |key, reached|
    equal(routed(confirming, source, key, {a: a, b: b, c: c}), reached)
  end
end

step 'route-headers' do |channel, confirming|
  source, a, b = exchange(channel, 'headers'), queue(channel), queue(channel)
  a.bind(source, arguments: {'x-match' => 'all', 'size' => 1, 'colour' => 'red'})
  b.bind(source, arguments: {'x-match' => 'any', 'size' => 1, 'colour' => 'red'})
  equal(routed(confirming, source, '', {a: a, b: b}, {size: 1, colour: 'red'}), 'ab')
  equal(routed(confirming, source, '', {a: a, b: b}, {size: 2, colour: 'red'}), 'b')
  equal(routed(confirming, source, '', {a: a, b: b}, {size: 2}), '')
end

step 'exchange-to-exchange' do |channel, confirming|
  source, target, a = exchange(channel, 'topic', auto_delete: false), exchange(channel, 'fanout'), queue(channel)
  a.bind(target)
  target.bind(source, routing_key: 'x.*', arguments: {'note' => 'kept'})
  equal(routed(confirming, source, 'x.1', {a: a}), 'a')
  target.unbind(source, routing_key: 'x.*', arguments: {'note' => 'kept'})
  equal(routed(confirming, source, 'x.1', {a: a}), '')
  source.delete
end

step 'alternate-exchange' do |channel, confirming|
  spare, a = exchange(channel, 'fanout'), queue(channel)
  source = exchange(channel, 'direct', auto_delete: false, arguments: {'alternate-exchange' => spare.name})
  a.bind(spare)
  equal(routed(confirming, source, 'unrouted', {a: a}), 'a')
  source.delete
end

step 'default-exchange' do |channel, confirming|
  a = queue(channel)
  channel.default_exchange.publish('m', routing_key: a.name)
  get(channel, a)
  equal(routed(confirming, channel.default_exchange, a.name, {a: a}), 'a')
  text = 'ACCESS_REFUSED - operation not permitted on the default exchange'
  refused(Bunny::AccessRefused, 403, text) { channel.queue_bind(a.name, '', routing_key: 'k') }
end

step 'purge-delete' do |_, confirming|
  a = queue(confirming)
  send_to(confirming, a, *%w[1 2 3 4 5])
  equal(confirming.queue_purge(a.name).message_count, 5)
  send_to(confirming, a, '1')
  equal(confirming.queue_delete(a.name).message_count, 1)
  equal(confirming.queue_delete(a.name).message_count, 0)
end

step 'delete-conditions' do |channel, confirming|
  a = queue(channel)
  send_to(confirming, a, 'm')
  refused(Bunny::PreconditionFailed, 406, "PRECONDITION_FAILED - queue '#{a.name}' in vhost '/' not empty") do
    $connection.create_channel.queue_delete(a.name, if_empty: true)
  end
  consume(channel, a.name)
  refused(Bunny::PreconditionFailed, 406, "PRECONDITION_FAILED - queue '#{a.name}' in vhost '/' in use") do
    $connection.create_channel.queue_delete(a.name, if_unused: true)
  end
end

step 'properties' do |channel, confirming|
  a = queue(channel)
  sent = {
    content_type: 'application/json', content_encoding: 'utf-8', headers: {'h' => 1}, delivery_mode: 2, priority: 7,
    correlation_id: 'c-1', reply_to: 'r', expiration: '60000', message_id: 'm-1', timestamp: 1_700_000_000, type: 't',
    user_id: $connection.user, app_id: 'app', cluster_id: 'cluster',
  }
  publish(confirming, '', a.name, '{}', **sent)
  got = get(channel, a)
  equal(got.properties.to_hash, {**sent, timestamp: Time.at(1_700_000_000)})
  equal([got.info.exchange, got.info.routing_key, got.info.redelivered], ['', a.name, false])
end

step 'headers' do |channel, confirming|
  a = queue(channel)
  headers = {
    'text' => "gr\u00fc\u00df \u{1f407}", 'empty' => '', 'yes' => true, 'no' => false, 'small' => -1, 'long' => 1 << 62, 'double' => 1.1,
    'nothing' => nil, 'time' => Time.at(1_700_000_000), 'list' => [1, 'two', true, {'four' => 4}],
    'table' => {'deep' => {'deeper' => ['x']}}, 'decimal' => BigDecimal(314), 'float' => AMQ::Protocol::Float32Bit.new(0.25),
  }
  publish(confirming, '', a.name, headers: headers)
  got = get(channel, a).properties[:headers]
  equal(got['text'].dup.force_encoding('UTF-8'), headers['text'])
  headers['float'] = 0.25
  headers.delete('text')
  got.delete('text')
  equal(got, headers)
end

step 'large' do |channel, confirming|
  a = queue(channel)
  content = 'the quick brown fox ' * (1 << 16)
  send_to(confirming, a, content)
  equal(get(channel, a).body == content, true)
  small = connect(frame_max: 4096)
  equal(small.frame_max, 4096)
  again = small.create_channel
  again.confirm_select
  own = queue(again)
  send_to(again, own, content)
  equal(get(again, own).body == content, true)
  small.close
end

step 'empty' do |channel, confirming|
  a = queue(channel)
  send_to(confirming, a, '')
  equal(get(channel, a).body, '')
end

step 'mandatory' do |channel|
  returns = Queue.new
  source = channel.default_exchange
  source.on_return { |*parts| returns << Message.new(*parts) }
  source.publish('lost', routing_key: name('none'), mandatory: true, message_id: 'm')
  back = next_of(returns)
  equal([back.info.reply_code, back.info.reply_text, back.properties.message_id, back.body], [312, 'NO_ROUTE', 'm', 'lost'])
end

step 'confirm' do |channel|
  a, told = queue(channel), Queue.new
  channel.confirm_select(->(tag, _multiple, nack) { told << "#{nack ? 'nack' : 'ack'} #{tag}" })
  channel.default_exchange.on_return { told << 'return' }
  equal([channel.using_publisher_confirmations?, channel.next_publish_seq_no], [true, 1])
  publish(channel, '', a.name, persistent: true)
  equal(counts(channel, a), [1, 0])
  publish(channel, '', name('none'), mandatory: true)
  equal([next_of(told), next_of(told), next_of(told)].sort, ['ack 1', 'ack 2', 'return'])
end

step 'confirm-many' do |_, confirming|
  a = queue(confirming)
  1000.times { confirming.basic_publish('m', '', a.name) }
  equal(Timeout.timeout(WAIT_S) { confirming.wait_for_confirms }, true)
  equal(confirming.unconfirmed_set.empty?, true)
  equal(counts(confirming, a), [1000, 0])
end

step 'confirm-nack' do |_, confirming|
  a = queue(confirming, 'x-max-length' => 1, 'x-overflow' => 'reject-publish')
  send_to(confirming, a, 'fits')
  confirming.basic_publish('does not', '', a.name)
  equal(Timeout.timeout(WAIT_S) { confirming.wait_for_confirms }, false)
  equal(confirming.nacked_set.to_a, [2])
end

step 'get' do |channel, confirming|
  a = queue(channel)
  equal(a.pop, [nil, nil, nil])
  send_to(confirming, a, '1', '2')
  first = get(channel, a)
  equal([first.body, first.info.message_count], ['1', 1])
  channel.ack(first.info.delivery_tag)
  equal(get(channel, a, manual_ack: false).info.message_count, 0)
end

step 'consume-ack' do |channel, confirming|
  a = queue(channel)
  deliveries, = consume(channel, a.name, manual_ack: true, consumer_tag: 'mine')
  send_to(confirming, a, *%w[1 2 3 4 5])
  messages = Array.new(5) { next_of(deliveries) }
  equal(messages.map { |each| [each.info.consumer_tag, each.info.delivery_tag.to_i, each.body] }, (1..5).map { |i| ['mine', i, i.to_s] })
  channel.ack(messages[2].info.delivery_tag, true)
  channel.ack(messages[4].info.delivery_tag)
  channel.close
  left = get(confirming, a.name)
  equal([left.body, left.info.redelivered, left.info.message_count], ['4', true, 0])
end

step 'consume-no-ack' do |channel, confirming|
  a = queue(channel)
  deliveries, = consume(channel, a.name)
  send_to(confirming, a, *%w[1 2 3])
  3.times { next_of(deliveries) }
  channel.close
  equal(empty?(confirming, a.name), true)
end

step 'nack' do |channel, confirming|
  a = queue(channel)
  send_to(confirming, a, *%w[1 2 3])
  tags = Array.new(3) { get(channel, a).info.delivery_tag }
  channel.nack(tags[1], true, true)
  channel.nack(tags[2])
  %w[1 2].each do |text|
    again = get(channel, a)
    equal([again.body, again.info.redelivered], [text, true])
  end
  equal(empty?(channel, a), true)
end

step 'reject' do |channel, confirming|
  a = queue(channel)
  send_to(confirming, a, 'm')
  channel.reject(get(channel, a).info.delivery_tag, true)
  again = get(channel, a)
  equal(again.info.redelivered, true)
  channel.reject(again.info.delivery_tag)
  equal(empty?(channel, a), true)
end

step 'recover' do |channel, confirming|
  a = queue(channel)
  send_to(confirming, a, 'm')
  deliveries, = consume(channel, a.name, manual_ack: true)
  next_of(deliveries)
  channel.basic_recover(true)
  equal(next_of(deliveries).info.redelivered, true)
end

step 'prefetch' do |channel, confirming|
  a = queue(channel)
  send_to(confirming, a, *%w[1 2 3 4 5])
  channel.prefetch(2)
  deliveries, = consume(channel, a.name, manual_ack: true)
  next_of(deliveries)
  second = next_of(deliveries)
  equal([counts(confirming, a), deliveries.size], [[3, 1], 0])
  channel.ack(second.info.delivery_tag, true)
  equal(next_of(deliveries).body, '3')
  channel.basic_qos(3, true)
end

step 'cancel' do |channel, confirming|
  a = queue(channel)
  deliveries, consumer = consume(channel, a.name)
  equal(counts(confirming, a), [0, 1])
  equal(consumer.cancel.consumer_tag, consumer.consumer_tag)
  send_to(confirming, a, 'm')
  equal([counts(confirming, a), deliveries.size], [[1, 0], 0])
end

step 'server-cancel' do |channel, confirming|
  a, cancelled = queue(channel), Queue.new
  consumer = Bunny::Consumer.new(channel, a)
  consumer.on_cancellation { |cancel| cancelled << cancel.consumer_tag }
  a.subscribe_with(consumer)
  confirming.queue_delete(a.name)
  equal(next_of(cancelled), consumer.consumer_tag)
  queue(channel)
end

step 'exclusive-consumer' do |channel, confirming|
  a = queue(channel)
  consume(channel, a.name, exclusive: true)
  refused(Bunny::AccessRefused, 403, "ACCESS_REFUSED - queue '#{a.name}' in vhost '/' in exclusive use") { consume(confirming, a.name) }
end

step 'consumer-priority' do |channel, confirming|
  a = queue(channel)
  low, = consume(channel, a.name)
  high, = consume(channel, a.name, arguments: {'x-priority' => 10})
  send_to(confirming, a, *%w[1 2 3])
  3.times { next_of(high) }
  equal(low.size, 0)
end

step 'unknown-delivery-tag' do |channel|
  closes = Queue.new
  channel.on_error { |_, close| closes << close }
  channel.basic_ack(99)
  close = next_of(closes)
  equal(close.reply_code, 406)
  starts(close.reply_text, 'PRECONDITION_FAILED - unknown delivery tag 99')
end

step 'message-ttl' do |channel, confirming|
  dead = queue(channel)
  a = queue(channel, 'x-dead-letter-exchange' => '', 'x-dead-letter-routing-key' => dead.name)
  publish(confirming, '', a.name, expiration: '20', headers: {kept: 'yes'})
  got = get(channel, dead).properties
  death = got[:headers]['x-death'].first
  equal(death.delete('time').class, Time)
  equal(death, {'queue' => a.name, 'exchange' => '', 'routing-keys' => [a.name], 'reason' => 'expired', 'count' => 1, 'original-expiration' => '20'})
  equal(got[:headers].values_at('kept', 'x-first-death-queue', 'x-first-death-reason'), ['yes', a.name, 'expired'])
  equal(got[:expiration], nil)
end

step 'dead-letter-rejected' do |channel, confirming|
  dlx, first = exchange(channel, 'direct'), name('q')
  dead = queue(channel, 'x-dead-letter-exchange' => '', 'x-dead-letter-routing-key' => first)
  dead.bind(dlx, routing_key: 'dead')
  arguments = {'x-dead-letter-exchange' => dlx.name, 'x-dead-letter-routing-key' => 'dead'}
  channel.queue_declare(first, exclusive: true, arguments: arguments)
  publish(confirming, '', first)
  [first, dead.name, first].each { |each| channel.reject(get(channel, each).info.delivery_tag) }
  got = get(channel, dead)
  equal([got.info.exchange, got.info.routing_key], [dlx.name, 'dead'])
  deaths = got.properties[:headers]['x-death'].map { |each| each.values_at('queue', 'reason', 'count', 'routing-keys') }
  equal(deaths, [[first, 'rejected', 2, [first]], [dead.name, 'rejected', 1, ['dead']]])
end

step 'max-length' do |channel, confirming|
  dead = queue(channel)
  a = queue(channel, 'x-max-length' => 2, 'x-dead-letter-exchange' => '', 'x-dead-letter-routing-key' => dead.name)
  send_to(confirming, a, *%w[1 2 3])
  dropped = get(channel, dead)
  equal([dropped.body, dropped.properties[:headers]['x-death'].first['reason']], %w[1 maxlen])
  equal(get(channel, a).body, '2')
end

step 'priority' do |channel, confirming|
  a = queue(channel, 'x-max-priority' => 5)
  [0, 1, 5, 3, 9].each { |level| publish(confirming, '', a.name, level.to_s, priority: level) }
  equal(Array.new(5) { get(channel, a).body }.join, '59310')
end

step 'tx-commit' do |channel, confirming|
  a, b = queue(channel), queue(channel)
  send_to(confirming, b, 'taken')
  taken = get(channel, b)
  channel.tx_select
  channel.basic_publish('1', '', a.name)
  channel.ack(taken.info.delivery_tag)
  equal([channel.using_tx?, empty?(confirming, a)], [true, true])
  channel.tx_commit
  equal(get(confirming, a).body, '1')
  equal(confirming.queue_delete(b.name).message_count, 0)
end

step 'tx-rollback' do |channel, confirming|
  a, b = queue(channel), queue(channel)
  send_to(confirming, b, 'taken')
  taken = get(channel, b)
  channel.tx_select
  channel.basic_publish('1', '', a.name)
  channel.ack(taken.info.delivery_tag)
  channel.tx_rollback
  equal(empty?(confirming, a), true)
  channel.nack(taken.info.delivery_tag, false, true)
  channel.tx_commit
  equal(get(confirming, b).body, 'taken')
  refused(Bunny::PreconditionFailed, 406, 'PRECONDITION_FAILED - cannot switch from tx to confirm mode') { channel.confirm_select }
end

step 'direct-reply-to' do |channel|
  requests, caller = queue(channel), $connection.create_channel
  replies, = consume_pseudo(caller, 'amq.rabbitmq.reply-to')
  caller.basic_publish('hey', '', requests.name, reply_to: 'amq.rabbitmq.reply-to', correlation_id: '42')
  request = get(channel, requests)
  channel.basic_publish("#{request.body}!", '', request.properties[:reply_to], correlation_id: request.properties[:correlation_id])
  reply = next_of(replies)
  equal([reply.body, reply.properties.correlation_id], ['hey!', '42'])
end

# A queue that cannot be declared.
def consume_pseudo(channel, from)
  deliveries = Queue.new
  [deliveries, channel.basic_consume(from, '', true) { |*parts| deliveries << Message.new(*parts) }]
end

step 'rpc-queue' do |channel|
  requests = queue(channel)
  requests.subscribe(manual_ack: true) do |info, properties, body|
    channel.default_exchange.publish((body.to_i * 2).to_s, routing_key: properties.reply_to, correlation_id: properties.correlation_id)
    channel.ack(info.delivery_tag)
  end
  caller, replies = $connection.create_channel, Queue.new
  answered = caller.queue('', exclusive: true)
  answered.subscribe { |*parts| replies << Message.new(*parts) }
  10.times { |i| caller.basic_publish(i.to_s, '', requests.name, reply_to: answered.name, correlation_id: i.to_s) }
  10.times do
    reply = next_of(replies)
    equal(reply.body.to_i, reply.properties.correlation_id.to_i * 2)
  end
end

step 'closed-channel' do |channel|
  none = name('none')
  channel.basic_publish('m', none, 'k')
  till('the channel is closed') { channel.closed? }
  close = channel.instance_variable_get(:@last_channel_error).channel_close # it tells nobody until somebody waits
  equal([close.reply_code, close.reply_text, close.class_id, close.method_id], [404, "NOT_FOUND - no exchange '#{none}' in vhost '/'", 60, 40])
  queue($connection.create_channel)
end

# Takes what Bunny would otherwise raise in the thread that made the connection.
class Errors < Queue
  def raise(error) = push(error)
end

step 'closed-connection' do
  errors = Errors.new
  opened = connect(session_error_handler: errors, recover_from_connection_close: false)
  opened.send_frame(AMQ::Protocol::Basic::Ack.encode(99, 1, false)) # on a channel that is not open
  error = next_of(errors)
  close = error.connection_close
  equal([error.class, close.reply_code], [Bunny::ChannelError, 504])
  starts(close.reply_text, "CHANNEL_ERROR - expected 'channel.open'")
  connect.close
end

step 'recovery' do |_, confirming|
  recovered = Queue.new
  recovering = connect(host: '127.0.0.1', port: RELAY_PORT.to_i, automatically_recover: true, network_recovery_interval: 0.1,
                       recovery_completed: -> { recovered << true })
  its = recovering.create_channel
  its.prefetch(5)
  source, mine, deliveries = exchange(its, 'topic'), its.queue('', exclusive: true), Queue.new
  mine.bind(source, routing_key: 'k.#')
  mine.subscribe { |*parts| deliveries << Message.new(*parts) }
  publish(confirming, source.name, 'k', 'before')
  equal(next_of(deliveries).body, 'before')
  say({ask: 'cut'})
  $stdin.gets
  next_of(recovered)
  publish(confirming, source.name, 'k.2', 'after')
  equal(next_of(deliveries).body, 'after')
  recovering.close
end

def attempt(word, run)
  $connection = connect(connection_name: PREFIX) unless $connection&.open?
  channel, confirming = $connection.create_channel, $connection.create_channel
  confirming.confirm_select
  run.call(channel, confirming)
  say({step: word, outcome: 'ok'})
rescue Absent => error
  say({step: word, outcome: 'absent', detail: error.message})
rescue StandardError, Timeout::Error => error
  say({step: word, outcome: 'failed', detail: error.full_message(highlight: false)})
ensure
  [channel, confirming].each { |each| each.close if each&.open? }
end

say({client: 'bunny', version: Bunny::VERSION})
quiet = connect(heartbeat: 1)
since = Time.now
STEPS.each { |word, run| attempt(word, run) }
attempt('idle', lambda do |_, _|
  sleep [0, since + 3.5 - Time.now].max
  equal(quiet.open?, true)
  queue(quiet.create_channel)
end)
$connection.close
quiet.close
