//! One connection to another replica: its reports and requests come in, ours and the log go out.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use weirmq_authority::{Member, Report};
use weirmq_store::{LogRead, Store, StoreError};

use super::Shared;
use super::driver::named;
use super::frame::{Fetch, Frame, FrameError, HEAD_BYTES, contents_bytes_of_peer, encode_log};
use super::refusals::{Reason, in_short};

/// How much log goes into one frame, at least one record.
const CHUNK_BYTES: usize = 256 << 10;
/// What a frame of a known peer may have beside a record of the greatest length.
const FRAME_BYTES: usize = 2 << 20;
/// Requests and answers that wait to be written.
const CONTROL_FRAMES: usize = 16;

/// The driver's end of a connection. Dropping it ends the connection.
pub(super) struct Link {
    pub(super) peer: Member,
    /// The newest version of the protocol that the peer speaks.
    pub(super) protocol: u32,
    /// Which connection this is: numbers are never used again.
    pub(super) number: u64,
    report: watch::Sender<Option<Report>>,
    control: mpsc::Sender<Frame>,
    /// From where the log is to be sent.
    fetch: watch::Sender<Option<Fetch>>,
    /// The peer can have the log up to here: what it said that it had, and what it was sent on this
    /// connection. Before it asked for any, nobody knows.
    sent: Arc<AtomicU64>,
    end: CancellationToken,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

/// What connections tell the driver.
pub(super) enum FromLink {
    Up(Link),
    Received { link: u64, peer: Member, frame: Frame },
    Down { link: u64, peer: Member, why: String },
}

/// What ends a connection.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error("it was closed")]
    Closed,
    #[error("nothing comes from the peer any more")]
    Silent,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Protocol(&'static str),
    #[error("read the log for it: {0}")]
    Store(#[from] StoreError),
}

impl Link {
    /// Sends this report instead of an earlier one that is still to be sent.
    pub(super) fn report(&self, report: Report) {
        self.report.send_replace(Some(report));
    }

    /// Sends a request or an answer; a peer that does not read them loses its connection, because
    /// neither side would know of the other what it needs.
    pub(super) fn send(&self, frame: Frame) {
        if self.control.try_send(frame).is_err() {
            tracing::warn!(replica = self.peer.replica.0, "replica reads too slowly, disconnected");
            self.end.cancel();
        }
    }

    /// Ends the connection once the peer was told why.
    pub(super) fn refuse(mut self, why: String) {
        self.send(Frame::Refused(why));
        // Without anybody who sends, what is sent ends by itself.
        self.end = CancellationToken::new();
    }

    /// Where a frame can be put that nobody is lost without: where there is no room it is dropped.
    pub(super) fn later(&self) -> mpsc::Sender<Frame> {
        self.control.clone()
    }

    /// Whether the peer can have the log up to `end`.
    pub(super) fn has_sent(&self, end: u64) -> bool {
        end <= self.sent.load(Ordering::Relaxed)
    }

    /// Sends the log from there on, or nothing any more.
    pub(super) fn send_log(&self, fetch: Option<Fetch>) {
        let sent = fetch.as_ref().map_or(u64::MAX, |fetch| fetch.from);
        self.sent.store(sent, Ordering::Relaxed);
        self.fetch.send_replace(fetch);
    }
}

/// Serves a connection until it ends, and tells the driver what comes. A peer reports more often than
/// each `silence`; from one that does not nothing comes any more.
pub(super) async fn run<S: AsyncRead + AsyncWrite + Send>(
    stream: S,
    (peer, protocol): (Member, u32),
    store: &Store,
    shared: &Arc<Shared>,
    silence: Duration,
    events: mpsc::Sender<FromLink>,
) {
    static NUMBERS: AtomicU64 = AtomicU64::new(1);
    let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
    let end = CancellationToken::new();
    let (report, reports) = watch::channel(None);
    let (control, controls) = mpsc::channel(CONTROL_FRAMES);
    let (fetch, fetches) = watch::channel(None);
    let sent = Arc::new(AtomicU64::new(u64::MAX));
    let (ours, ending) = (sent.clone(), end.clone());
    let link = Link { peer, protocol, number, report, control, fetch, sent: ours, end: ending };
    if events.send(FromLink::Up(link)).await.is_err() {
        return;
    }
    let (reader, writer) = tokio::io::split(stream);
    let limit = store.frame_bytes_max();
    let ended = tokio::select! {
        () = end.cancelled() => Err(LinkError::Closed),
        ended = read(reader, peer, number, limit, silence, &events) => ended,
        ended = write(writer, reports, controls, fetches, &sent, store, shared) => ended,
    };
    if let Err(error @ (LinkError::Frame(_) | LinkError::Protocol(_))) = &ended {
        shared.counted.refusals.refused(&named(peer.replica), Reason::NoReplica, error);
    }
    // With words of the peer, where a frame of its is none.
    let why = ended.err().map_or_else(String::new, |error| in_short(&error));
    let _ = events.send(FromLink::Down { link: number, peer, why }).await;
}

/// How long a frame may be in which a record of this store comes.
trait FrameBytes {
    fn frame_bytes_max(&self) -> usize;
}

impl FrameBytes for Store {
    fn frame_bytes_max(&self) -> usize {
        self.record_bytes_max() + FRAME_BYTES
    }
}

async fn read(
    mut reader: impl AsyncRead + Unpin,
    peer: Member,
    link: u64,
    limit: usize,
    silence: Duration,
    events: &mpsc::Sender<FromLink>,
) -> Result<(), LinkError> {
    let mut buffer = BytesMut::new();
    loop {
        while let Some(head) = buffer.first_chunk::<HEAD_BYTES>() {
            let (kind, bytes) = contents_bytes_of_peer(*head, limit)?;
            if buffer.len() < HEAD_BYTES + bytes {
                // More as it comes: a length is soon said.
                buffer.reserve((HEAD_BYTES + bytes - buffer.len()).min(FRAME_BYTES));
                break;
            }
            let contents = buffer.split_to(HEAD_BYTES + bytes).freeze().slice(HEAD_BYTES..);
            let frame = Frame::decode(kind, contents)?;
            if matches!(&frame, Frame::Report(report) if report.from != peer) {
                return Err(LinkError::Protocol("it reports in the name of another replica"));
            }
            if events.send(FromLink::Received { link, peer, frame }).await.is_err() {
                return Ok(());
            }
        }
        if buffer.capacity() - buffer.len() < 4096 {
            buffer.reserve(CHUNK_BYTES);
        }
        let read = tokio::time::timeout(silence, reader.read_buf(&mut buffer)).await;
        if read.map_err(|_| LinkError::Silent)?? == 0 {
            return Err(LinkError::Closed);
        }
    }
}

async fn write(
    mut writer: impl AsyncWrite + Unpin,
    mut reports: watch::Receiver<Option<Report>>,
    mut controls: mpsc::Receiver<Frame>,
    mut fetches: watch::Receiver<Option<Fetch>>,
    sent: &AtomicU64,
    store: &Store,
    shared: &Shared,
) -> Result<(), LinkError> {
    let mut written = shared.written.subscribe();
    let mut log: Option<Fetch> = None;
    // What comes next in the log, while it is fetched from the disk or is not due yet.
    let mut old: Option<OldLog<'_>> = None;
    let mut read = None;
    let mut out = Vec::new();
    loop {
        out.clear();
        if fetches.has_changed().unwrap_or(false) {
            log.clone_from(&fetches.borrow_and_update());
            (old, read) = (None, None);
        }
        let mut is_at_end = true;
        if let Some(fetch) = log.as_mut().filter(|_| old.is_none()) {
            let found = match read.take() {
                Some((found, bytes)) => {
                    out = bytes;
                    found
                }
                None => read_log(store, fetch, false, &mut out)?,
            };
            match found {
                LogRead::Read { next } => {
                    fetch.from = next;
                    is_at_end = next >= store.watermarks().written();
                    // Before it is: the answer may come before the write has ended.
                    sent.fetch_max(next, Ordering::Relaxed);
                }
                LogRead::End => {}
                LogRead::OnDisk => old = Some(Box::pin(read_old_log(store, shared, fetch.clone()))),
                LogRead::Gone => {
                    Frame::Refused(gone(fetch)).encode(&mut out);
                    log = None;
                }
            }
        }
        if reports.has_changed().unwrap_or(false)
            && let Some(report) = *reports.borrow_and_update()
        {
            Frame::Report(report).encode(&mut out);
        }
        while let Ok(frame) = controls.try_recv() {
            frame.encode(&mut out);
        }
        if !out.is_empty() {
            writer.write_all(&out).await?;
            writer.flush().await?;
            if !is_at_end {
                // Others on this thread have their turn.
                tokio::task::yield_now().await;
                continue;
            }
        }
        tokio::select! {
            biased;
            frame = controls.recv() => {
                let frame = frame.ok_or(LinkError::Closed)?;
                out.clear();
                frame.encode(&mut out);
                writer.write_all(&out).await?;
                writer.flush().await?;
            }
            changed = fetches.changed() => {
                changed.map_err(|_| LinkError::Closed)?;
                fetches.mark_changed();
                written.borrow_and_update();
            }
            found = is_due(&mut old) => {
                (old, read) = (None, Some(found?));
            }
            changed = written.changed(), if log.is_some() && old.is_none() => {
                changed.map_err(|_| LinkError::Closed)?;
            }
            changed = async { reports.changed().await } => {
                changed.map_err(|_| LinkError::Closed)?;
                reports.mark_changed();
            }
        }
    }
}

/// Appends a frame with what follows in the log, if there is any; unless the read `may_wait` the disk is not
/// asked.
fn read_log(
    store: &Store,
    fetch: &Fetch,
    may_wait: bool,
    out: &mut Vec<u8>,
) -> Result<LogRead, StoreError> {
    let mut found = Ok(LogRead::End);
    let _ = encode_log(out, fetch.epoch, fetch.from, |out| {
        found = store.read_log(fetch.from, CHUNK_BYTES, may_wait, out);
        matches!(found, Ok(LogRead::Read { .. })).then_some(())
    });
    found
}

/// A frame of log that is not in memory, once it is read and due.
type OldLog<'a> = Pin<Box<dyn Future<Output = Result<(LogRead, Vec<u8>), StoreError>> + Send + 'a>>;

/// Waits for ever where there is nothing.
async fn is_due(old: &mut Option<OldLog<'_>>) -> Result<(LogRead, Vec<u8>), StoreError> {
    match old {
        Some(old) => old.await,
        None => std::future::pending().await,
    }
}

/// What a slave that is far behind gets. Nothing else waits for it, neither others on this thread nor what
/// goes to the same slave: one that is not heard is taken for gone.
async fn read_old_log(
    store: &Store,
    shared: &Shared,
    fetch: Fetch,
) -> Result<(LogRead, Vec<u8>), StoreError> {
    let (store, position) = (store.clone(), fetch.from);
    let reading = tokio::task::spawn_blocking(move || {
        let mut out = Vec::new();
        read_log(&store, &fetch, true, &mut out).map(|found| (found, out))
    });
    let (found, bytes) = reading
        .await
        .map_err(|error| StoreError::NoContinuation { position, reason: error.to_string() })??;
    shared.catch_up.pay(bytes.len() as u64).await;
    Ok((found, bytes))
}

fn gone(fetch: &Fetch) -> String {
    format!("the log has no record at {} any more", fetch.from)
}

#[cfg(test)]
mod tests {
    use weirmq_authority::{Incarnation, LogPosition, ReplicaId};
    use weirmq_store::{NewMessage, SimulatedDisk, StoreConfig, SystemClock};

    use super::*;
    use crate::replication::Status;
    use crate::replication::frame::contents_bytes;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// A store with one message, which is not in memory.
    fn store(config: StoreConfig) -> Store {
        let disk = Arc::new(SimulatedDisk::new());
        let open = || Store::open(config.clone(), disk.clone(), Arc::new(SystemClock)).unwrap().0;
        let before = open();
        before.append_now(&[NewMessage::plain("t", 0, b"old")], &mut Vec::new()).unwrap();
        before.close().unwrap();
        open()
    }

    #[tokio::test]
    async fn reports_do_not_wait_for_log_that_is_not_due() {
        let folder = tempfile::tempdir().unwrap();
        let config = crate::BrokerConfig { data_dir: folder.path().into(), ..Default::default() };
        let store = store(config.store_config());
        // A byte a second: the message is due in minutes.
        let check = weirmq_admin::Admin::default().check("replication");
        let commands = mpsc::channel(1).0;
        let shared = Shared::new(Status::new(0, 1), commands, check, 1, Arc::default());
        let shared = Arc::new(shared);
        let from = Member { replica: ReplicaId(1), incarnation: Incarnation(5) };
        let report = Report {
            from,
            promised: 1,
            promised_version: 1,
            refuses: false,
            leaves: false,
            hands_over: false,
            position: LogPosition::default(),
            leads: Some(1),
            follows: None,
            lost: None,
            confirmed: 0,
            sent: Duration::ZERO,
            echo: None,
        };
        let (here, mut there) = tokio::io::duplex(1 << 20);
        let (events, mut links) = mpsc::channel(4);
        let serve = run(here, (from, 2), &store, &shared, PATIENCE, events);
        let hear = async {
            let Some(FromLink::Up(link)) = links.recv().await else { panic!("no link") };
            link.send_log(Some(Fetch { epoch: 1, from: 0 }));
            link.report(report);
            let mut heard = Vec::new();
            for _ in 0..2 {
                let mut head = [0; HEAD_BYTES];
                there.read_exact(&mut head).await.unwrap();
                let (kind, length) = contents_bytes(head, 1 << 20).unwrap();
                let mut contents = vec![0; length];
                there.read_exact(&mut contents).await.unwrap();
                heard.push(Frame::decode(kind, contents.into()).unwrap());
                // Also while the message is being waited for.
                link.send(Frame::Refused("no".into()));
            }
            heard
        };
        let heard = tokio::select! {
            () = serve => panic!("the connection ended"),
            heard = tokio::time::timeout(PATIENCE, hear) => heard.unwrap(),
        };
        assert_eq!(heard, [Frame::Report(report), Frame::Refused("no".into())]);
    }
}
