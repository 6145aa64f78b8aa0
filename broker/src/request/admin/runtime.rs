//! The broker itself: code 28.

use std::collections::BTreeMap;

use weirmq_remoting::body::{Body as _, KVTable};
use weirmq_remoting::command::Command;

use crate::delay::DelayLevel;
use crate::request::{Context, Refusal, succeed_with_body};
use crate::topics::SCHEDULE_TOPIC;

/// Apache's keys, as far as they mean something here: the dashboard and exporters read them.
pub(in crate::request) fn info(
    context: &Context<'_>,
    request: &Command<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let broker = context.broker;
    let marks = broker.store.watermarks();
    let (put, got) = broker.metrics.totals();
    let rates = broker.metrics.rates(broker.now_ms());
    let triple = |rates: [f64; 3]| rates.map(|rate| format!("{rate:.1}")).join(" ");
    let stats = broker.store.stats();
    let used = 1.0 - stats.disk_free as f64 / (stats.disk_total.max(1)) as f64;
    let mut table = BTreeMap::new();
    let mut put_in = |key: &str, value: String| table.insert(key.to_owned(), value);
    put_in("brokerActive", "true".into());
    // Tools show the part up to the first blank and expect Apache's notation: the protocol level.
    put_in("brokerVersionDesc", concat!("V5_3_3-WeirMQ-", env!("CARGO_PKG_VERSION")).into());
    put_in("brokerVersion", weirmq_remoting::command::VERSION.to_string());
    put_in("bootTimestamp", broker.started_ms.to_string());
    put_in("runtime", runtime(broker.now_ms() - broker.started_ms));
    put_in("msgPutTotalTodayNow", put.to_string());
    put_in("msgGetTotalTodayNow", got.to_string());
    for key in ["msgPutTotalYesterdayMorning", "msgPutTotalTodayMorning"] {
        put_in(key, "0".into());
    }
    for key in ["msgGetTotalYesterdayMorning", "msgGetTotalTodayMorning"] {
        put_in(key, "0".into());
    }
    put_in("putTps", triple(rates.put));
    put_in("getTransferredTps", triple(rates.got));
    put_in("getTransferedTps", triple(rates.got));
    put_in("getFoundTps", triple(rates.got));
    put_in("getTotalTps", triple(rates.got));
    put_in("getMissTps", triple([0.0; 3]));
    put_in("dispatchBehindBytes", "0".into());
    put_in("commitLogMinOffset", broker.store.min_offset().to_string());
    put_in("commitLogMaxOffset", marks.written().to_string());
    // Our own: what is damaged now, and what came back from other replicas since the start.
    put_in("commitLogDamagedBytes", stats.damaged_bytes.to_string());
    put_in("commitLogRepairedBytes", stats.repaired_bytes.to_string());
    put_in("remainHowManyDataToFlush", format!("{} B", marks.unflushed()));
    put_in("commitLogDiskRatio", format!("{used:.4}"));
    put_in("consumeQueueDiskRatio", format!("{used:.4}"));
    put_in(
        "commitLogDirCapacity",
        format!("Total : {} GiB, Free : {} GiB.", stats.disk_total >> 30, stats.disk_free >> 30),
    );
    put_in("putMessageTimesTotal", put.to_string());
    let earliest = broker.earliest_store_time()?;
    put_in("earliestMessageTimeStamp", earliest.unwrap_or(-1).to_string());
    // Requests are acted upon as they arrive: no queue stands between a connection and its thread.
    for pool in ["send", "pull", "litePull", "query", "ack"] {
        put_in(&format!("{pool}ThreadPoolQueueSize"), "0".into());
        put_in(&format!("{pool}ThreadPoolQueueCapacity"), "0".into());
        put_in(&format!("{pool}ThreadPoolQueueHeadWaitTimeMills"), "0".into());
    }
    // Delivered and stored of each delay level, as `ScheduleMessageService.buildRunningStats` has it.
    for level in DelayLevel::all() {
        if let Some(range) = broker.store.queue_range(SCHEDULE_TOPIC, level.queue()) {
            let (number, next) = (level.number(), broker.state.delay.get(level.number()));
            put_in(&format!("scheduleMessageOffset_{number}"), format!("{next},{}", range.max));
        }
    }
    put_in("pageCacheLockTimeMills", "0".into());
    put_in("startAcceptSendRequestTimeStamp", "0".into());
    succeed_with_body(out, &request.head, &KVTable { table }.encode());
    Ok(())
}

fn runtime(elapsed_ms: i64) -> String {
    let seconds = elapsed_ms / 1000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    format!(
        "[ {days} days, {} hours, {} minutes, {} seconds ]",
        hours % 24,
        minutes % 60,
        seconds % 60
    )
}
