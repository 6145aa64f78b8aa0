//! The task of one connection.

use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, sleep_until};

use super::{Connection, Session};
use crate::ResponseCode;
use crate::command::{self, Command, Head, Language};
use crate::frame::{self, FrameError, Split};

/// The most room that a read buffer is made with.
const READ_BYTES: usize = 64 * 1024;
/// The room of a connection that has sent nothing for a while, or only little ever. Ten thousand
/// connections that heartbeat now and then keep what was touched once.
const IDLE_READ_BYTES: usize = 512;
/// Who fills the room gets so many times more.
const READ_GROWTH: usize = 8;
/// With this much unsent nothing more is read: the peer has to take its answers first.
const UNSENT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Buffers above this size are given back when they run empty.
const KEPT_BYTES_MAX: usize = 512 * 1024;
/// An idle connection gives back all its buffers after this long.
const IDLE_CHECK: Duration = Duration::from_secs(15);

/// What a connection may ask of this side.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The longest frame, in bytes.
    pub frame_bytes_max: usize,
    /// A connection on which nothing moved for this long is closed; `None`: never.
    pub idle_timeout: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frame_bytes_max: frame::FRAME_BYTES_MAX,
            idle_timeout: Some(Duration::from_secs(120)),
        }
    }
}

/// The requests that one read brought, each decoded when it is asked for.
///
/// Responses among the frames go to the calls that wait for them. A header that cannot be read is
/// answered here, with `SYSTEM_ERROR`.
pub struct Requests<'a> {
    /// Whole frames.
    bytes: &'a Bytes,
    at: usize,
    /// Where the newest request begins.
    newest: usize,
    frame_bytes_max: usize,
    connection: &'a Connection,
    is_paused: bool,
    /// How long to wait before the rest is tried again.
    retry_after: Option<Duration>,
}

impl<'a> Requests<'a> {
    /// The next request, `None` when there is none or when `out`, the answers so far, must leave
    /// first; what is left then comes with the next call of the session.
    pub fn next(&mut self, out: &[u8]) -> Option<Command<'a>> {
        loop {
            if out.len() >= UNSENT_BYTES_MAX {
                self.is_paused = true;
                return None;
            }
            // All frames are whole and were looked at before.
            let Ok(Split::Frame(frame, length)) =
                frame::split(&self.bytes[self.at..], self.frame_bytes_max)
            else {
                return None;
            };
            self.newest = self.at;
            self.at += length;
            match Command::decode(&frame) {
                Ok(command) if command.head.is_response() => {
                    self.connection.answer(command.head.opaque, &frame);
                }
                Ok(command) => return Some(command),
                Err(error) => {
                    tracing::debug!(peer = %self.connection.peer(), %error, "header refused");
                    let unknown = Head {
                        serialize: frame.serialize,
                        code: 0,
                        language: Language::OTHER,
                        version: 0,
                        opaque: 0,
                        flag: 0,
                    };
                    let remark = error.to_string();
                    let _ = self.connection.write(|out| {
                        command::response(out, &unknown, ResponseCode::SystemError, Some(&remark))
                            .finish(b"");
                    });
                }
            }
        }
    }

    /// Puts the newest request back: it comes again after so long, with those behind it, and nothing
    /// is read from this peer until then. For what cannot be done at the moment; who waits on his
    /// thread holds up all its connections.
    pub fn postpone(&mut self, retry_after: Duration) {
        self.at = self.newest;
        self.is_paused = true;
        self.retry_after = Some(retry_after);
    }

    /// A handle of a part of these requests, such as a body. It keeps the read buffer alive.
    pub fn share(&self, part: &[u8]) -> Bytes {
        self.bytes.slice_ref(part)
    }
}

/// Serves a connection until one side closes it, it breaks, or it idles too long.
pub(super) async fn run<R, W, S>(
    mut reader: R,
    mut writer: W,
    connection: Connection,
    mut session: S,
    limits: Limits,
) where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
    S: Session,
{
    let ended = drive(&mut reader, &mut writer, &connection, &mut session, &limits).await;
    connection.end();
    session.closed();
    if let Err(reason) = ended {
        tracing::debug!(peer = %connection.peer(), %reason, "connection ended");
    }
    if !connection.is_aborted() {
        let _ = writer.shutdown().await;
    }
}

/// Why a connection ended, when not because both sides were done.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("socket: {0}")]
    Io(#[from] std::io::Error),
    #[error("peer sent a {0}")]
    Frame(#[from] FrameError),
    #[error("peer left more than {} bytes unread", super::outbox::OUTBOX_BYTES_MAX)]
    Overflow,
    #[error("nothing moved for {0:?}")]
    Idle(Duration),
}

async fn drive<S: Session>(
    reader: &mut (impl AsyncRead + Unpin),
    writer: &mut (impl AsyncWrite + Unpin),
    connection: &Connection,
    session: &mut S,
    limits: &Limits,
) -> Result<(), Ended> {
    let mut input = BytesMut::new();
    let mut read_bytes = IDLE_READ_BYTES;
    // Frames that nobody has acted upon, because the answers to others have to leave first, or
    // because the session wants to try again later.
    let mut paused = Bytes::new();
    let mut is_postponed = false;
    let retry = sleep_until(Instant::now());
    tokio::pin!(retry);
    // What is wrong behind the last whole frame.
    let mut broken = None;
    let mut out: Vec<u8> = Vec::new();
    let mut sent = 0;
    let mut last_moved = Instant::now();
    let idle_check = sleep_until(last_moved + IDLE_CHECK);
    tokio::pin!(idle_check);
    loop {
        if !paused.is_empty() && !is_postponed && out.len() - sent < UNSENT_BYTES_MAX {
            out.drain(..sent);
            sent = 0;
            let retry_after;
            (paused, retry_after) = receive(paused, connection, session, &mut out, limits);
            if let Some(retry_after) = retry_after {
                is_postponed = true;
                retry.as_mut().reset(Instant::now() + retry_after);
            }
        }
        if paused.is_empty()
            && let Some(error) = broken.take()
        {
            return Err(Ended::Frame(error));
        }
        // A peer that does not read leaves the outbox to fill up to its own limit.
        let is_open = if out.len() - sent < UNSENT_BYTES_MAX {
            connection.take_outbox(&mut out)
        } else {
            !connection.is_closed()
        };
        if connection.is_overflowed() {
            return Err(Ended::Overflow);
        }
        if connection.is_aborted() {
            return Ok(());
        }
        let unsent = out.len() - sent;
        if !is_open && unsent == 0 {
            return Ok(());
        }
        let may_read = is_open && paused.is_empty() && unsent < UNSENT_BYTES_MAX;
        if may_read && input.capacity() - input.len() < read_bytes / 2 {
            // Doubles at most: what a length field claims is not reserved before it arrives.
            input.reserve(read_bytes.max(input.len()));
        }
        tokio::select! {
            biased;
            written = writer.write(&out[sent..]), if unsent > 0 => {
                let written = written?;
                if written == 0 {
                    return Err(Ended::Io(std::io::ErrorKind::WriteZero.into()));
                }
                sent += written;
                last_moved = Instant::now();
                if sent == out.len() {
                    sent = 0;
                    clear(&mut out);
                }
            }
            read = reader.read_buf(&mut input), if may_read => {
                if read? == 0 {
                    return Ok(());
                }
                last_moved = Instant::now();
                if input.len() == input.capacity() {
                    read_bytes = (read_bytes * READ_GROWTH).min(READ_BYTES);
                }
                let length;
                (length, broken) = whole_frames(&input, limits.frame_bytes_max);
                if length > 0 {
                    let frames = input.split_to(length).freeze();
                    if length > KEPT_BYTES_MAX {
                        // The rest of a buffer that one large frame blew up is given back.
                        input = BytesMut::from(&input[..]);
                    }
                    let retry_after;
                    (paused, retry_after) = receive(frames, connection, session, &mut out, limits);
                    if let Some(retry_after) = retry_after {
                        is_postponed = true;
                        retry.as_mut().reset(Instant::now() + retry_after);
                    }
                }
            }
            () = &mut retry, if is_postponed => is_postponed = false,
            () = connection.outbox_changed() => {}
            () = &mut idle_check => {
                let idle = last_moved.elapsed();
                if let Some(limit) = limits.idle_timeout.filter(|limit| idle >= *limit) {
                    return Err(Ended::Idle(limit));
                }
                if idle >= IDLE_CHECK {
                    read_bytes = IDLE_READ_BYTES;
                    input = BytesMut::from(&input[..]);
                    out.shrink_to_fit();
                    connection.shrink_outbox();
                }
                idle_check.as_mut().reset(Instant::now() + IDLE_CHECK);
            }
        }
    }
}

/// How many bytes the whole frames at the front of `input` take, and what is wrong behind them.
fn whole_frames(input: &[u8], frame_bytes_max: usize) -> (usize, Option<FrameError>) {
    let mut length = 0;
    loop {
        match frame::split(&input[length..], frame_bytes_max) {
            Ok(Split::Frame(_, bytes)) => length += bytes,
            Ok(Split::Need(_)) => return (length, None),
            Err(error) => return (length, Some(error)),
        }
    }
}

/// Hands whole frames to the session. Gives those back that have to wait until the answers to the
/// others have left, or as long as the session says.
fn receive<S: Session>(
    mut frames: Bytes,
    connection: &Connection,
    session: &mut S,
    out: &mut Vec<u8>,
    limits: &Limits,
) -> (Bytes, Option<Duration>) {
    let mut requests = Requests {
        bytes: &frames,
        at: 0,
        newest: 0,
        frame_bytes_max: limits.frame_bytes_max,
        connection,
        is_paused: false,
        retry_after: None,
    };
    session.received(&mut requests, out);
    let Requests { at, is_paused, retry_after, .. } = requests;
    if !is_paused {
        return (Bytes::new(), None);
    }
    frames.advance(at);
    (frames, retry_after)
}

fn clear(buffer: &mut Vec<u8>) {
    buffer.clear();
    if buffer.capacity() > KEPT_BYTES_MAX {
        buffer.shrink_to(READ_BYTES);
    }
}
