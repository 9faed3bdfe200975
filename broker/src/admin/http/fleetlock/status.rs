//! How a group stands, for operators. No token is shown: it is the machine's alone.

use serde_json::{Value, json};
use tidings_protocol::{Timestamp, slot::SlotName};

use crate::{config::Rules, slots::Group};

pub(in crate::admin::http) fn of(name: &SlotName, rules: Rules, group: &Group) -> Value {
    let time = |seconds| Timestamp::from_seconds(seconds).to_string();
    let holders = group.holders.iter().map(|holder| {
        let until = holder.renewed.saturating_add(rules.lease);
        json!({"id": holder.node, "serial": holder.serial, "since": time(holder.since), "until": time(until)})
    });
    let waiting = group
        .waiting
        .iter()
        .map(|waiter| json!({"id": waiter.node, "since": time(waiter.since)}));
    let failed = group.failed.iter().map(|failure| {
        json!({"id": failure.node, "serial": failure.serial, "at": time(failure.at), "returned": failure.returned.map(time)})
    });
    let history = group
        .history
        .iter()
        .map(|event| json!({"at": time(event.at), "what": event.what, "id": event.node}));
    json!({
        "group": name.as_str(),
        "state": group.state(rules),
        "max": rules.max,
        "lease_seconds": rules.lease,
        "failures": rules.failures,
        "holders": holders.collect::<Vec<_>>(),
        "waiting": waiting.collect::<Vec<_>>(),
        "failed": failed.collect::<Vec<_>>(),
        "history": history.collect::<Vec<_>>(),
    })
}
