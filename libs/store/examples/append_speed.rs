//! Prints how fast the store appends and reads on this machine.
//!
//! `cargo run --release -p weirmq-store --example append_speed [directory]`

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weirmq_store::{
    FlushMode, KeySource, NewMessage, ReadLimits, RealDisk, Store, StoreConfig, StoreError,
    SystemClock, Upkeep,
};

const BODY_BYTES: usize = 1024;

fn main() -> Result<(), StoreError> {
    let chosen = std::env::args().nth(1).map(PathBuf::from);
    let root = chosen.unwrap_or_else(std::env::temp_dir).join("weirmq-append-speed");
    let (none, one) = (KeySource::None, KeySource::Properties);
    for (flush, keys, batch, queues, messages) in [
        (FlushMode::ASYNC, none, 1, 4, 500_000),
        (FlushMode::ASYNC, none, 64, 1, 2_000_000),
        (FlushMode::ASYNC, none, 64, 4, 2_000_000),
        (FlushMode::ASYNC, one, 64, 4, 2_000_000),
        (FlushMode::Sync, one, 1, 4, 20_000),
        (FlushMode::Sync, one, 64, 4, 500_000),
    ] {
        let config = StoreConfig {
            directory: root.clone(),
            flush,
            upkeep: Upkeep { free_bytes_min: Some(0), ..Upkeep::default() },
            ..StoreConfig::default()
        };
        run(config, Load { keys, batch, queues, messages })?;
        let _ = std::fs::remove_dir_all(&root);
    }
    Ok(())
}

/// What is appended.
#[derive(Clone, Copy)]
struct Load {
    keys: KeySource,
    batch: usize,
    queues: i32,
    messages: usize,
}

fn run(config: StoreConfig, load: Load) -> Result<(), StoreError> {
    let is_sync = config.flush == FlushMode::Sync;
    let started = Instant::now();
    let open = || Store::open(config.clone(), Arc::new(RealDisk), Arc::new(SystemClock));
    let (store, _) = open()?;
    let opened = started.elapsed();
    let (started, cpu) = (Instant::now(), thread_cpu());
    append(&store, load, is_sync)?;
    let (took, cpu) = (started.elapsed(), thread_cpu() - cpu);
    println!(
        "{} flush, {} keys, {} queues, batches of {}: {:.0} k appends/s, {:.3} us each, \
         {:.3} us of them on a CPU; opened in {opened:.1?}",
        if is_sync { "sync" } else { "async" },
        i32::from(load.keys != KeySource::None),
        load.queues,
        load.batch,
        rate(load.messages, took) / 1e3,
        took.as_secs_f64() * 1e6 / load.messages as f64,
        cpu.as_secs_f64() * 1e6 / load.messages as f64,
    );
    if load.batch > 1 && !is_sync {
        read(&store)?;
        drop(store);
        let started = Instant::now();
        let (_, report) = open()?;
        println!(
            "  unclean open: {:.0?}, {} records of {} segments read again",
            started.elapsed(),
            report.rebuilt_records,
            report.rebuilt_segments
        );
    }
    Ok(())
}

fn append(store: &Store, load: Load, is_sync: bool) -> Result<(), StoreError> {
    let body = [7u8; BODY_BYTES];
    let host = "127.0.0.1:10911".parse().expect("an address");
    let mut properties = vec![Vec::new(); load.batch];
    let mut appended = Vec::new();
    for first in (0..load.messages).step_by(load.batch) {
        for (n, encoded) in properties.iter_mut().enumerate() {
            encoded.clear();
            encoded.extend_from_slice(b"TAGS\x01a\x02UNIQ_KEY\x01");
            encoded.extend_from_slice(&((first + n) as u64 | 1 << 56).to_string().into_bytes());
            encoded.extend_from_slice(b"\x02WAIT\x01true\x02");
        }
        let message = |(n, properties)| NewMessage {
            topic: "append-speed",
            queue_id: n as i32 % load.queues,
            flag: 0,
            sys_flag: 0,
            born_timestamp: 0,
            born_host: host,
            store_host: host,
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body: &body,
            properties,
            tag_hash: 97,
            index_keys: load.keys,
            dispatch: true,
        };
        let numbered = properties.iter().enumerate();
        let messages: Vec<_> =
            numbered.map(|(n, encoded)| message((n, encoded.as_slice()))).collect();
        store.append(&messages, &mut appended)?;
        if let (true, Some(last)) = (is_sync, appended.last()) {
            store.sync_wait(last.end_offset, Duration::from_secs(10))?;
        }
    }
    Ok(())
}

/// Reads one queue from its start to its end, twice.
fn read(store: &Store) -> Result<(), StoreError> {
    let mut out = Vec::new();
    let mut found = 0;
    let (started, cpu) = (Instant::now(), thread_cpu());
    for _ in 0..2 {
        let mut next = 0;
        loop {
            out.clear();
            let limits = ReadLimits { messages: 64, bytes: 1 << 20 };
            let read =
                store.read_queue("append-speed", 0, next, limits, &mut |_| true, &mut out)?;
            if read.found == 0 {
                break;
            }
            found += read.found;
            next = read.next;
        }
    }
    let (took, cpu) = (started.elapsed(), thread_cpu() - cpu);
    println!(
        "  reads of 64 messages: {:.0} k messages/s, {:.3} us of CPU each",
        rate(found, took) / 1e3,
        cpu.as_secs_f64() * 1e6 / found as f64
    );
    Ok(())
}

/// CPU time of this thread so far, kernel included: on a busy machine the steadier figure.
fn thread_cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = text.split(' ').next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.unwrap_or_default())
}

fn rate(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}
