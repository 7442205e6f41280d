"""Verbs about policies, parameters and limits. Texts are rabbitmqctl's."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from leveret.broker.access import MAX_CHANNELS, MAX_CONNECTIONS
from leveret.broker.model.rules.authority import InvalidValue
from leveret.broker.model.rules.policies import ALL, OPERATOR_POLICY, POLICY, make_policy, shown
from leveret.broker.model.vhost import MAX_QUEUES, VHOST_LIMITS
from leveret.broker.server.access_verbs import require_user
from leveret.broker.server.calls import EX_UNAVAILABLE, Answer, Call, Refusal, table

if TYPE_CHECKING:
    from collections.abc import Callable

# -- policies


def _json(text: str) -> Any:  # noqa: ANN401 - whatever it is
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise Refusal("Error:\nJSON decoding error. Reason: badarg", EX_UNAVAILABLE) from None


def _set(kind: str) -> Callable[[Call], None]:
    def set_policy(call: Call) -> None:
        vhost = call.node.vhost(call.vhost_name)
        policy = make_policy(
            kind,
            call[0],
            call[1],
            _json(call[2]),
            _json(call.options.get("priority", "0")),
            call.options.get("apply-to", ALL),
        )
        vhost.set_policy(kind, policy)

    return set_policy


def _clear(kind: str) -> Callable[[Call], None]:
    def clear_policy(call: Call) -> None:
        if not call.node.vhost(call.vhost_name).clear_policy(kind, call[0]):
            raise InvalidValue("Parameter does not exist")

    return clear_policy


def _list(kind: str) -> Callable[[Call], Answer]:
    def list_policies(call: Call) -> Answer:
        vhost = call.node.vhost(call.vhost_name)
        rows = [
            [vhost.name, each.name, each.pattern, each.apply_to, _compact(each.definition), each.priority]
            for each in vhost.policies.by_name[kind].values()
        ]
        return table(["vhost", "name", "pattern", "apply-to", "definition", "priority"], rows)

    return list_policies


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


# -- parameters


def _set_parameter(call: Call) -> None:
    vhost = call.node.vhost(call.vhost_name)
    component, name, text = call[0], call[1], call[2]
    value = _json(text)
    if component == POLICY:
        raise InvalidValue("policies may not be set using this method")
    if component == VHOST_LIMITS:
        vhost.set_limits(_limits(text, (MAX_CONNECTIONS, MAX_QUEUES), "limits", "Validation failed\n\n"))
    elif component == OPERATOR_POLICY:
        if not isinstance(value, dict) or not isinstance(value.get("pattern"), str):
            raise InvalidValue(f'Validation failed\n\nKey "pattern" not found in {name}\n')
        pattern, definition = value["pattern"], value.get("definition", {})
        priority, apply_to = value.get("priority", 0), value.get("apply-to", ALL)
        policy = make_policy(OPERATOR_POLICY, name, pattern, definition, priority, apply_to)
        vhost.set_policy(OPERATOR_POLICY, policy)
    else:
        raise InvalidValue(f"Validation failed\n\ncomponent {component} not found\n")


def _clear_parameter(call: Call) -> None:
    vhost = call.node.vhost(call.vhost_name)
    if call[0] == VHOST_LIMITS and call[1] == "limits" and vhost.limits:
        vhost.clear_limits()
    elif call[0] != OPERATOR_POLICY or not vhost.clear_policy(OPERATOR_POLICY, call[1]):
        raise InvalidValue("Parameter does not exist")


def _list_parameters(call: Call) -> Answer:
    vhost = call.node.vhost(call.vhost_name)
    policies = vhost.policies.by_name[OPERATOR_POLICY].values()
    rows: list[list[Any]] = [
        [OPERATOR_POLICY, each.name, _compact(json.loads(each.to_json()))] for each in policies
    ]
    if vhost.limits:
        rows.append([VHOST_LIMITS, "limits", _compact(vhost.limits)])
    return table(["component", "name", "value"], rows)


def _set_global_parameter(call: Call) -> None:
    call.node.global_parameters.set(call[0], _json(call[1]))


def _clear_global_parameter(call: Call) -> None:
    if not call.node.global_parameters.clear(call[0]):
        raise InvalidValue("Parameter does not exist")


def _list_global_parameters(call: Call) -> Answer:
    rows: list[list[Any]] = [
        [name, _compact(value)] for name, value in call.node.global_parameters.by_name.items()
    ]
    return table(["name", "value"], rows)


# -- limits


def _limits(text: str, known: tuple[str, ...], what: str, begin: str) -> dict[str, int]:
    """Read a JSON object of limits.

    Raises:
        InvalidValue: it is not one, or has something else in it.
    """
    limits = _json(text)
    end = "\n" if begin else ""
    if not isinstance(limits, dict):
        raise InvalidValue(f"{begin}{what} should be a JSON object{end}")
    for name, value in limits.items():
        if name in known and (not isinstance(value, int) or isinstance(value, bool)):
            raise InvalidValue(f"{begin}{name} should be a number, actually was {shown(value)}{end}")
    unknown = [f"{{{shown(name)},{shown(value)}}}" for name, value in limits.items() if name not in known]
    if unknown:
        raise InvalidValue(f"{begin}Unrecognised terms [{','.join(unknown)}] in {what}{end}")
    return limits


def _set_vhost_limits(call: Call) -> None:
    vhost = call.node.vhost(call.vhost_name)
    begin = "Validation failed\n\n"
    vhost.set_limits(_limits(call[0], (MAX_CONNECTIONS, MAX_QUEUES), "limits", begin))


def _clear_vhost_limits(call: Call) -> None:
    vhost = call.node.vhost(call.vhost_name)
    if not vhost.limits:
        raise InvalidValue("Parameter does not exist")
    vhost.clear_limits()


def _list_vhost_limits(call: Call) -> Answer:
    if "global" in call.options:
        rows: list[list[Any]] = [
            [vhost.name, _compact(vhost.limits)] for vhost in call.node.vhosts.values() if vhost.limits
        ]
        return table(["vhost", "limits"], rows)
    limits = call.node.vhost(call.vhost_name).limits
    return {"text": _compact(limits) if limits else ""}


def _set_user_limits(call: Call) -> None:
    require_user(call)
    limits = _limits(call[1], (MAX_CONNECTIONS, MAX_CHANNELS), "user-limits", "")
    call.node.authority.set_limits(call[0], {**call.node.authority.users[call[0]].limits, **limits})


def _clear_user_limits(call: Call) -> None:
    require_user(call)
    kept = dict(call.node.authority.users[call[0]].limits)
    for name in list(kept) if call[1] == "all" else [call[1]]:
        kept.pop(name, None)
    call.node.authority.set_limits(call[0], kept)


def _list_user_limits(call: Call) -> Answer:
    users = call.node.authority.users
    if "global" in call.options:
        rows: list[list[Any]] = [[user.name, _compact(user.limits)] for user in users.values() if user.limits]
        return table(["user", "limits"], rows)
    name = call.options.get("user", "guest")
    user = users.get(name)
    if user is None:
        raise Refusal(f'Error:\n{{:no_such_user, "{name}"}}', EX_UNAVAILABLE)
    return {"text": _compact(user.limits)}


PARAMETER_VERBS: Final[dict[str, Callable[[Call], Answer | None]]] = {
    "set_policy": _set(POLICY),
    "clear_policy": _clear(POLICY),
    "list_policies": _list(POLICY),
    "set_operator_policy": _set(OPERATOR_POLICY),
    "clear_operator_policy": _clear(OPERATOR_POLICY),
    "list_operator_policies": _list(OPERATOR_POLICY),
    "set_parameter": _set_parameter,
    "clear_parameter": _clear_parameter,
    "list_parameters": _list_parameters,
    "set_global_parameter": _set_global_parameter,
    "clear_global_parameter": _clear_global_parameter,
    "list_global_parameters": _list_global_parameters,
    "set_vhost_limits": _set_vhost_limits,
    "clear_vhost_limits": _clear_vhost_limits,
    "list_vhost_limits": _list_vhost_limits,
    "set_user_limits": _set_user_limits,
    "clear_user_limits": _clear_user_limits,
    "list_user_limits": _list_user_limits,
}
