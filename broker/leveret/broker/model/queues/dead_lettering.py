"""Publishes what queues let go to their dead-letter exchanges.

It happens in the batch that removes the message from its queue, so a dead letter is never lost between the
two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from leveret.broker.model.message_properties import visible_routing_keys
from leveret.broker.model.queues.dead_letter import REJECTED, dead_letter, deaths, is_cycle
from leveret.protocol.content import Envelope
from leveret.protocol.properties import Properties

if TYPE_CHECKING:
    from leveret.broker.model.turn import DeadLetter
    from leveret.broker.model.vhost import VHost


def publish_dead_letter(vhost: VHost, dead: DeadLetter) -> int:
    """Route one dead letter into queues; without its exchange it is dropped.

    Returns:
        how many queues were left out because the message would go round in a circle.

    Source: RabbitMQ guide "Dead Letter Exchanges".
    """
    queue = dead.queue
    exchange = vhost.exchanges.get(queue.arguments.dead_letter_exchange or "")
    if exchange is None:
        return 0
    old = dead.message.envelope
    visible_keys = visible_routing_keys(old.routing_key, None if old.cc_is_spent else old.fields.headers)
    raw = dead_letter(
        old.raw,
        old.fields,
        queue=queue.name,
        reason=dead.reason,
        exchange=old.exchange,
        routing_keys=visible_keys,
        time_s=dead.time_ms // 1000,
        trusted=old.dead_lettered or vhost.turn.trusts_x_death,
    )
    dead_letter_key = queue.arguments.dead_letter_routing_key
    if dead_letter_key is not None:
        keys = [dead_letter_key]
    else:
        keys = list(dict.fromkeys([*visible_keys, *old.bcc_keys]))
    fields = Properties.parse(raw)
    envelope = Envelope(exchange.name, keys[0], raw, fields, old.channel, old.frame_max)
    envelope.dead_lettered = True
    if dead_letter_key is None:
        envelope.bcc_keys = old.bcc_keys
    envelope.cc_is_spent = old.cc_is_spent or dead_letter_key is not None
    message = dead.message.with_envelope(envelope)
    targets = vhost.router.queues_for(exchange, keys, fields.headers)
    if targets is None:
        targets, _ = vhost.router.queues_of(exchange, keys, message)
    left_out = 0
    if dead.reason != REJECTED:
        history = deaths(fields.headers)
        going = [target for target in targets if not is_cycle(history, target.name)]
        left_out = len(targets) - len(going)
        targets = going
    for target in targets:
        target.enqueue([message], message.body_bytes, -1)
    return left_out
